"""Reads of single products at the same time, whose lookups travel together, with real inventory and pricing."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.trace import SpanKind

from inventory.servicer import InventoryServicer
from pricing.servicer import PricingServicer
from tests.edge.mesh import Answer, Mesh, absent_server, assert_problem, get, mesh, trace_id_of, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVENTORY, PRICING = "aiomesh.inventory.v1.InventoryService", "aiomesh.pricing.v1.PricingService"
PATIENT = {"X-Request-Timeout-Ms": "20000"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as running, unlimited() as http:
        yield replace(running, http=http)


def unlimited() -> aiohttp.ClientSession:
    """A client without a limit of connections."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def together(shop: Mesh, *paths: str, **headers: str) -> list[Answer]:
    """The responses to concurrent requests."""
    return list(await asyncio.gather(*(shop.get(path, headers=PATIENT | headers) for path in paths)))


def sku(number: int) -> str:
    return f"TEA-{number % 40 + 1:04}"


def code_of(span: ReadableSpan) -> object:
    return (span.attributes or {})["rpc.response.status_code"]


@pytest.mark.parametrize("products", [1, 300], ids=["one product", "different products"])
async def test_three_hundred_concurrent_reads_all_get_their_stock_and_price(shop: Mesh, products: int) -> None:
    before = len(shop.edge.spans())
    wanted = [(sku(number % products), number % products % 12 + 1) for number in range(300)]
    answers = await together(shop, *(f"/v1/products/{sku}?quantity={quantity}" for sku, quantity in wanted))
    assert Counter(answer.status for answer in answers) == {200: 300}
    got = [(answer.body["sku"], (answer.body["price"] or {}).get("quantity")) for answer in answers]
    assert got == wanted
    await shop.spans()
    calls = [span for span in shop.edge.spans()[before:] if span.kind is SpanKind.CLIENT]
    assert Counter(map(code_of, calls)) == {"OK": len(calls)}
    assert len(calls) < 300, "at most one call for two lookups"


async def test_every_trace_of_concurrent_reads_is_complete_and_has_one_call_for_each_batch(shop: Mesh) -> None:
    answers = await together(shop, *(f"/v1/products/{sku(number)}" for number in range(30)))
    ids = {answer.trace_id for answer in answers}
    spans = [span for span in await shop.spans() if trace_id_of(span) in ids]
    children: dict[int, list[ReadableSpan]] = defaultdict(list)
    for span in spans:
        children[span.parent.span_id if span.parent else 0].append(span)
    batches = 0
    for root in children[0]:
        assert sorted(span.name for span in children[span_id(root)]) == [
            f"{INVENTORY}/GetStock",
            f"{PRICING}/GetPrice",
        ]
        for lookup in children[span_id(root)]:
            batches += assert_complete(lookup, children)
    assert batches, "thirty reads at once make a batch"


def assert_complete(lookup: ReadableSpan, children: dict[int, list[ReadableSpan]]) -> int:
    """Asserts the spans below a lookup. Returns how many batches travelled under it."""
    if lookup.kind is SpanKind.CLIENT:
        assert_handled(lookup, children)
        return 0
    below = children[span_id(lookup)]
    calls = [span for span in below if span.kind is SpanKind.CLIENT]
    [part] = [span for span in below if span not in calls]
    assert part.kind is SpanKind.INTERNAL
    size = (lookup.attributes or {})["rpc.batch.size"]
    assert (part.attributes or {})["rpc.batch.size"] == size
    assert len(lookup.links) == len(part.links) == 1
    for call in calls:
        assert len(call.links) + 1 == size
        assert_handled(call, children)
    return len(calls)


def assert_handled(call: ReadableSpan, children: dict[int, list[ReadableSpan]]) -> None:
    """Asserts that a call has one server span, which has one statement."""
    [server] = children[span_id(call)]
    assert (server.name, server.kind) == (call.name, SpanKind.SERVER)
    [statement] = children[span_id(server)]
    assert statement.name in {"SELECT stock", "SELECT pricing.db"}


def span_id(span: ReadableSpan) -> int:
    assert span.context
    id_: int = span.context.span_id
    return id_


async def test_the_response_for_an_unknown_product_is_the_same_alone_and_in_a_batch(shop: Mesh) -> None:
    paths = ["/v1/products/NO-1", "/v1/products/GFT-0010", "/v1/products/GFT-0010?strict=true"]
    alone = [await shop.get(path, headers={"baggage": "goes=alone"}) for path in paths]
    for _ in range(2):
        answers = await together(shop, *paths * 10)
        for index, answer in enumerate(answers):
            assert answer.status == alone[index % 3].status
            assert without_trace(answer) == without_trace(alone[index % 3])


def without_trace(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in answer.body.items() if name != "trace_id"}


async def test_each_currency_has_its_own_batches_and_a_wrong_one_fails_only_its_readers(shop: Mesh) -> None:
    currencies = ["EUR", "JPY", "XXX", "USD"]
    answers = await together(shop, *(f"/v1/products/{sku(n)}?currency={currencies[n % 4]}" for n in range(60)))
    for number, answer in enumerate(answers):
        if currencies[number % 4] == "XXX":
            assert_problem(answer, 400, "UNKNOWN_CURRENCY")
        else:
            assert answer.body["price"]["currency"] == currencies[number % 4]


async def test_reads_with_baggage_or_trace_state_make_their_own_calls(shop: Mesh) -> None:
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1"}
    for headers in ({"baggage": "user=ada"}, trace):
        before = len(shop.edge.spans())
        answers = await together(shop, *(f"/v1/products/{sku(number)}" for number in range(5)), **headers)
        assert {answer.status for answer in answers} == {200}
        await shop.spans()
        calls = [span.name for span in shop.edge.spans()[before:] if span.kind is SpanKind.CLIENT]
        assert Counter(calls) == {f"{INVENTORY}/GetStock": 5, f"{PRICING}/GetPrice": 5}


async def test_a_read_of_too_many_units_fails_alone(tmp_path: Path) -> None:
    """Its total is above what pricing calculates, for which it refuses the whole batch."""
    expensive = "/v1/products/{}?currency=JPY&quantity=1000000"

    class Strict(PricingServicer):
        async def GetPrice(self, request: Any, context: Any) -> Any:
            request.quantity = request.quantity if request.quantity < 1_000_000 else 0
            return await super().GetPrice(request, context)

        async def BatchGetPrices(self, request: Any, context: Any) -> Any:
            for line in request.lines:
                line.quantity = line.quantity if line.quantity < 1_000_000 else 0
            return await super().BatchGetPrices(request, context)

    async with mesh(tmp_path, pricing_servicer=Strict) as shop:
        paths = [expensive.format(sku(0)), *(f"/v1/products/{sku(number)}?currency=JPY" for number in range(20))]
        poison, *others = await together(shop, *paths)
    assert_problem(poison, 400, "INVALID_REQUEST")
    assert all(answer.body["price"] for answer in others)


async def test_the_metrics_count_real_calls(shop: Mesh) -> None:
    before = len(await client_spans(shop))
    measured = await measured_calls(shop)
    await together(shop, *(f"/v1/products/{sku(number)}" for number in range(30)))
    made = len(await client_spans(shop)) - before
    assert await measured_calls(shop) - measured == made < 60


async def client_spans(shop: Mesh) -> list[ReadableSpan]:
    await shop.spans()
    return [span for span in shop.edge.spans() if span.kind is SpanKind.CLIENT]


async def measured_calls(shop: Mesh) -> float:
    text = (await shop.get("/metrics")).text
    return sum(map(float, re.findall(r"^rpc_client_call_duration_seconds_count{.*} (\S+)$", text, re.MULTILINE)))


async def test_while_pricing_is_gone_there_are_no_more_attempts_than_reads(tmp_path: Path) -> None:
    with absent_server() as address:
        async with mesh(tmp_path, pricing_target=address) as running, unlimited() as http:
            shop = replace(running, http=http)
            for _ in range(3):
                answers = await together(shop, *(f"/v1/products/{sku(number)}" for number in range(40)))
                assert {answer.body["problems"][0]["code"] for answer in answers} == {"UNAVAILABLE"}
            calls = [span for span in await client_spans(shop) if span.name.startswith(PRICING)]
    assert len(calls) <= 1.2 * 3 * 40


async def test_lookups_above_the_limit_are_refused_with_retry_after(tmp_path: Path) -> None:
    arrived, free = asyncio.Event(), asyncio.Event()

    class Held(InventoryServicer):
        async def GetStock(self, request: Any, context: Any) -> Any:
            arrived.set()
            await free.wait()
            return await super().GetStock(request, context)

        async def BatchGetStock(self, request: Any, context: Any) -> Any:
            await free.wait()
            return await super().BatchGetStock(request, context)

    async with mesh(tmp_path, inventory_servicer=Held, max_waiting=1) as running, unlimited() as http:
        reads = asyncio.ensure_future(together(replace(running, http=http), *["/v1/products/TEA-0001"] * 50))
        await arrived.wait()
        free.set()
        answers = await reads
    refused = [answer for answer in answers if answer.status != 200]
    assert refused
    for answer in refused:
        assert_problem(answer, 429, "RESOURCE_EXHAUSTED")
        assert answer.headers["Retry-After"] == "1"


async def test_a_batch_is_cancelled_only_when_its_last_client_has_disconnected(tmp_path: Path) -> None:
    members: list[int] = []
    cancelled = asyncio.Event()

    class Held(InventoryServicer):
        async def BatchGetStock(self, request: Any, context: Any) -> Any:
            members.append(len(request.skus))
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    async with mesh(tmp_path, inventory_servicer=Held) as shop, wire(shop) as one, wire(shop) as other:
        while not members:  # until two requests arrive in one turn
            for connection in (one, other):
                connection._writer.write(get("/v1/products/TEA-0001", X_Request_Timeout_Ms="15000"))
            done, _ = await asyncio.wait(
                [asyncio.create_task(connection.answer()) for connection in (one, other)], timeout=0.5
            )
            assert len(done) == 2 or members
        assert members == [2]
        one._writer.close()
        while not [span for span in shop.edge.spans("GET /v1/products/{sku}") if is_499(span)]:
            await asyncio.sleep(0.001)
        assert not cancelled.is_set()
        other._writer.close()
        await cancelled.wait()
        spans = await shop.spans()
    batch = [span for span in spans if span.name == f"{INVENTORY}/BatchGetStock"]
    assert {code_of(span) for span in batch} == {"CANCELLED"}


def is_499(span: ReadableSpan) -> bool:
    return (span.attributes or {}).get("http.response.status_code") == 499
