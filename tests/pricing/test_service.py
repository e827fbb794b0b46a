"""The pricing service over real gRPC, as other services call it."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from aiomesh.pricing.v1 import error_reason_pb2
from aiomesh.pricing.v1 import pricing_service_pb2 as pb
from aiomesh.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub
from meshkit.errors import DeadlineExceeded, ServiceError, Unavailable, mapping_of
from meshkit.status import service_errors
from meshkit.testing import FakeClock, SpanCapture, start_server
from pricing.app import PRICING, build
from pricing.domain import DatabaseUnavailable
from pricing.settings import Settings
from tests.open_spans import OpenSpans
from tests.pricing.opened import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from google.protobuf.message import Message
    from opentelemetry.sdk.trace import ReadableSpan

    from aiomesh.pricing.v1.pricing_service_pb2_grpc import PricingServiceAsyncStub
    from meshkit.service import GrpcApp
    from tests.databases import Seeded

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]  # the first one starts PostgreSQL

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Pricing:
    """The running service: its stub, the service itself, and its ended and open spans."""

    stub: PricingServiceAsyncStub
    app: GrpcApp
    capture: SpanCapture
    open_spans: OpenSpans


@asynccontextmanager
async def start_service(database_url: str) -> AsyncIterator[Pricing]:
    """The service on a database that is not prepared yet."""
    capture, open_spans = SpanCapture("pricing"), OpenSpans()
    capture.telemetry.tracer_provider.add_span_processor(open_spans)
    async with (
        build(Settings(database_url=database_url), capture.telemetry, clock=FakeClock(NOW)) as app,
        start_server(app.server) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Pricing(PricingServiceStub(channel), app, capture, open_spans)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_service(shared_url: str) -> AsyncIterator[Pricing]:
    async with start_service(shared_url) as pricing:
        await pricing.app.check()
        yield pricing


@pytest_asyncio.fixture(loop_scope="module")
async def pricing(shared_service: Pricing, seeded: Seeded) -> Pricing:
    """The shared service, on the database as its seeds left it."""
    await shared_service.open_spans.until_ended()
    await seeded.restore()
    shared_service.capture.exporter.clear()
    return shared_service


async def refusal(call: Awaitable[Message]) -> tuple[str, str, dict[str, str]]:
    """The gRPC code, the reason and the metadata of a call that fails."""
    with pytest.raises(ServiceError) as caught, service_errors():
        await call
    error = caught.value
    assert error.domain == "pricing.aiomesh"
    assert error_reason_pb2.ErrorReason.Value(
        f"ERROR_REASON_{error.reason}"
    )  # raises ValueError if the reason is unknown
    return mapping_of(error).code, error.reason, error.fields


async def spans_of(pricing: Pricing, method: str) -> list[ReadableSpan]:
    """All spans of one call; the server span is last and may end shortly after the client has the response."""
    while not pricing.capture.spans(f"{PRICING.name}/{method}"):
        await asyncio.sleep(0)
    return pricing.capture.spans()


def quote_request(*lines: tuple[str, int], currency: str = "EUR") -> pb.CreateQuoteRequest:
    return pb.CreateQuoteRequest(
        request_id=str(uuid.uuid4()),
        lines=[pb.PriceLine(sku=sku, quantity=quantity) for sku, quantity in lines],
        currency_code=currency,
        fingerprint="digest",
    )


async def test_a_price_includes_its_list_price_and_promotion(pricing: Pricing) -> None:
    response = await pricing.stub.GetPrice(pb.GetPriceRequest(sku="TEA-0001", quantity=12, currency_code="KWD"))
    price = response.price
    assert (price.sku, price.quantity, price.promotion, price.fraction_digits) == (
        "TEA-0001",
        12,
        "house-favourites",
        3,
    )
    assert price.list_price == Money(currency_code="EUR", units=16, nanos=900_000_000)
    assert price.unit_price == Money(currency_code="KWD", units=5, nanos=179_000_000)
    assert price.total == Money(currency_code="KWD", units=62, nanos=148_000_000)


async def test_a_batch_returns_known_skus_in_order_and_lists_the_others(pricing: Pricing) -> None:
    asked = ["COF-0019", "GFT-0010", "TEA-0001", "GONE", "GFT-0010", "COF-0019"]
    request = pb.BatchGetPricesRequest(lines=[pb.PriceLine(sku=sku, quantity=1) for sku in asked], currency_code="JPY")
    response = await pricing.stub.BatchGetPrices(request)
    assert [price.sku for price in response.prices] == ["COF-0019", "TEA-0001", "COF-0019"]
    assert list(response.missing_skus) == ["GFT-0010", "GONE"]
    assert {price.fraction_digits for price in response.prices} == {0}


async def test_a_batch_returns_the_same_prices_as_single_calls(pricing: Pricing) -> None:
    lines = [pb.PriceLine(sku=sku, quantity=12) for sku in ("TEA-0001", "HRB-0010", "CUP-0011", "COF-0018")]
    batch = await pricing.stub.BatchGetPrices(pb.BatchGetPricesRequest(lines=lines, currency_code="USD"))
    single = [
        await pricing.stub.GetPrice(pb.GetPriceRequest(sku=line.sku, quantity=line.quantity, currency_code="USD"))
        for line in lines
    ]
    assert list(batch.prices) == [response.price for response in single]


async def test_a_repeat_returns_the_same_quote_to_the_byte(pricing: Pricing) -> None:
    request = quote_request(("TEA-0001", 12), ("CUP-0011", 2), currency="GBP")
    first = await pricing.stub.CreateQuote(request)
    again = await pricing.stub.CreateQuote(request)
    read = await pricing.stub.GetQuote(pb.GetQuoteRequest(quote_id=request.request_id))
    assert first == again
    assert first.quote == read.quote
    assert first.quote.create_time.ToDatetime(UTC) == NOW
    assert (first.quote.currency_code, first.quote.fraction_digits) == ("GBP", 2)
    assert [line.total.currency_code for line in first.quote.lines] == ["GBP", "GBP"]


async def test_a_new_list_price_applies_at_once_and_not_to_old_quotes(pricing: Pricing) -> None:
    request = quote_request(("TEA-0002", 1))
    before = await pricing.stub.CreateQuote(request)
    new = Money(currency_code="CHF", units=20)
    change = pb.SetPriceRequest(request_id=str(uuid.uuid4()), sku="TEA-0002", list_price=new)
    assert (await pricing.stub.SetPrice(change)).list_price == new
    now = await pricing.stub.GetPrice(pb.GetPriceRequest(sku="TEA-0002", quantity=1, currency_code="CHF"))
    assert now.price.unit_price == new
    assert await pricing.stub.CreateQuote(request) == before


async def test_a_quote_is_deleted_when_its_attempts_are_undone_and_stays_when_it_is_confirmed(pricing: Pricing) -> None:
    stub, request = pricing.stub, quote_request(("TEA-0001", 12))
    request.attempt_id = str(uuid.uuid4())
    undo = pb.UndoCreateQuoteRequest(request_id=request.request_id, attempt_id=request.attempt_id)
    confirm = pb.ConfirmQuoteRequest(quote_id=request.request_id)
    await stub.CreateQuote(request)
    assert (await stub.UndoCreateQuote(undo)).undone
    assert not (await stub.UndoCreateQuote(undo)).undone
    assert (await refusal(stub.ConfirmQuote(confirm)))[:2] == ("NOT_FOUND", "UNKNOWN_QUOTE")
    request.fingerprint = "another"
    made = await stub.CreateQuote(request)
    assert (await stub.ConfirmQuote(confirm)).quote == made.quote
    assert not (await stub.UndoCreateQuote(undo)).undone
    assert (await stub.GetQuote(pb.GetQuoteRequest(quote_id=request.request_id))).quote == made.quote


async def test_an_attempt_without_an_id_cannot_be_undone(pricing: Pricing) -> None:
    request = quote_request(("TEA-0001", 12))
    await pricing.stub.CreateQuote(request)
    undo = pb.UndoCreateQuoteRequest(request_id=request.request_id)
    assert (await refusal(pricing.stub.UndoCreateQuote(undo)))[:2] == ("INVALID_ARGUMENT", "INVALID_REQUEST")


async def test_all_pages_of_unsettled_quotes_are_settled(pricing: Pricing) -> None:
    stub, tomorrow = pricing.stub, Timestamp()
    tomorrow.FromDatetime(NOW + timedelta(days=1))
    requests = [quote_request(("TEA-0001", 1)) for _ in range(3)]
    for request in requests:
        await stub.CreateQuote(request)
    first = await stub.ListUnsettledQuotes(pb.ListUnsettledQuotesRequest(create_time_before=tomorrow, page_size=2))
    rest = await stub.ListUnsettledQuotes(
        pb.ListUnsettledQuotesRequest(create_time_before=tomorrow, page_size=2, page_token=first.next_page_token)
    )
    ids = [*first.quote_ids, *rest.quote_ids]
    assert ids == sorted(request.request_id for request in requests)
    assert not rest.next_page_token
    settle = pb.SettleQuotesRequest(
        committed_quote_ids=ids[:1],
        finished_quote_ids=ids[1:2],
        orphaned_quote_ids=ids[2:],
        create_time_before=tomorrow,
    )
    assert [(await stub.SettleQuotes(settle)).deleted_count for _ in range(2)] == [1, 0]
    assert (await stub.GetQuote(pb.GetQuoteRequest(quote_id=ids[0]))).quote.quote_id == ids[0]
    left = await stub.ListUnsettledQuotes(pb.ListUnsettledQuotesRequest(create_time_before=tomorrow))
    assert left.quote_ids == ids[2:], "an orphaned quote stays for a minute after its last attempt"


async def test_each_error_has_its_code_reason_and_fields(pricing: Pricing) -> None:
    stub, unknown = pricing.stub, str(uuid.uuid4())
    get, batch = pb.GetPriceRequest, pb.BatchGetPricesRequest
    lines = [pb.PriceLine(sku="TEA-0001", quantity=1)]
    assert await refusal(stub.GetPrice(get(sku="GONE", quantity=1, currency_code="EUR"))) == (
        "NOT_FOUND",
        "UNKNOWN_SKU",
        {"sku": "GONE"},
    )
    assert await refusal(stub.GetPrice(get(sku="GONE", quantity=1, currency_code="XTS"))) == (
        "INVALID_ARGUMENT",
        "UNKNOWN_CURRENCY",
        {"currency": "XTS"},
    )
    assert (await refusal(stub.BatchGetPrices(batch(lines=lines, currency_code="eur"))))[1] == "UNKNOWN_CURRENCY"
    assert (await refusal(stub.GetPrice(get())))[:2] == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert (await refusal(stub.GetQuote(pb.GetQuoteRequest(quote_id="no uuid"))))[:2] == ("NOT_FOUND", "UNKNOWN_QUOTE")
    assert await refusal(stub.GetQuote(pb.GetQuoteRequest(quote_id=unknown))) == (
        "NOT_FOUND",
        "UNKNOWN_QUOTE",
        {"quote_id": unknown},
    )
    request = quote_request(("TEA-0001", 1))
    await stub.CreateQuote(request)
    request.fingerprint = "another"
    assert await refusal(stub.CreateQuote(request)) == (
        "ALREADY_EXISTS",
        "REQUEST_ID_REUSED",
        {"request_id": request.request_id},
    )


async def test_violations_have_their_paths(pricing: Pricing) -> None:
    with pytest.raises(ServiceError) as caught, service_errors():
        await pricing.stub.CreateQuote(quote_request(("TEA-0001", 0), ("TEA-0001", 1)))
    assert [violation.field for violation in caught.value.violations] == ["lines[0].quantity", "lines[1].sku"]


async def test_a_request_with_a_hundred_invalid_lines_gets_an_error(pricing: Pricing) -> None:
    lines = [pb.PriceLine(sku="\u202e" * 800, quantity=-1)] * 100
    request = pb.CreateQuoteRequest(request_id="x" * 10_000, lines=lines, fingerprint="\x00")
    assert (await refusal(pricing.stub.CreateQuote(request)))[1] == "INVALID_REQUEST"
    currency = "\U0001f375" * 10_000
    wrong = pb.GetPriceRequest(sku="A", quantity=1, currency_code=currency)
    assert (await refusal(pricing.stub.GetPrice(wrong)))[1] == "UNKNOWN_CURRENCY"
    assert (await refusal(pricing.stub.GetQuote(pb.GetQuoteRequest(quote_id=currency))))[1] == "UNKNOWN_QUOTE"


async def test_a_hundred_lines_are_priced_by_one_statement(pricing: Pricing) -> None:
    lines = [pb.PriceLine(sku=f"TEA-{number:04}", quantity=1) for number in range(1, 101)]
    await pricing.stub.BatchGetPrices(pb.BatchGetPricesRequest(lines=lines, currency_code="KWD"))
    statement, server = await spans_of(pricing, "BatchGetPrices")
    assert statement.name.startswith("SELECT")
    assert statement.parent == server.context
    assert "TEA-0001" not in str(statement.attributes)


async def test_a_new_quote_has_spans_for_one_transaction(pricing: Pricing) -> None:
    await pricing.stub.CreateQuote(quote_request(("TEA-0001", 1), ("TEA-0002", 1)))
    names = [span.name for span in await spans_of(pricing, "CreateQuote")]
    assert [name.split()[0] for name in names[:3]] == ["BEGIN", "INSERT", "SELECT"]
    assert names[3] == "UPDATE quotes"
    assert names[4] in {"INSERT quote_lines", "BATCH INSERT quote_lines"}
    assert [name.split()[0] for name in names[5:-1]] == ["INSERT", "COMMIT"]
    assert names[-1].endswith("/CreateQuote")


async def test_concurrent_requests_with_one_id_create_one_quote(pricing: Pricing) -> None:
    request = quote_request(("TEA-0001", 12))

    async def attempt() -> pb.CreateQuoteResponse:
        while True:
            try:
                with service_errors():
                    return await pricing.stub.CreateQuote(request, timeout=PATIENCE)
            except (Unavailable, DeadlineExceeded):  # a slow machine exceeds a limit
                continue

    answers = await asyncio.gather(*(attempt() for _ in range(50)))
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1


async def test_a_quote_of_a_cancelled_client_is_complete_or_absent(database_url: str) -> None:
    requests = [quote_request(("TEA-0001", 12), ("CUP-0011", 2), ("KET-0001", 1)) for _ in range(30)]

    async def give_up(pricing: Pricing, request: pb.CreateQuoteRequest, turns: int) -> None:
        call = pricing.stub.CreateQuote(request)
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call

    async with start_service(database_url) as pricing:
        await pricing.app.check()
        await asyncio.gather(*(give_up(pricing, request, turns) for turns, request in enumerate(requests)))
        for request in requests:
            quote = (await pricing.stub.CreateQuote(request)).quote
            assert [line.sku for line in quote.lines] == [line.sku for line in request.lines]
            assert (await pricing.stub.GetQuote(pb.GetQuoteRequest(quote_id=request.request_id))).quote == quote


async def test_without_a_database_calls_are_unavailable_with_retry_info(tmp_path: Path) -> None:
    async with start_service(f"sqlite:///{tmp_path}/missing/pricing.db") as pricing:
        with pytest.raises(DatabaseUnavailable):
            await pricing.app.check()
        request = pb.GetPriceRequest(sku="TEA-0001", quantity=1, currency_code="EUR")
        assert (await refusal(pricing.stub.GetPrice(request)))[:2] == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
