from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as PbMoney

from aiomesh.pricing.v1 import pricing_service_pb2 as pb
from pricing import convert
from pricing.domain import (
    InvalidRequest,
    Line,
    Money,
    Order,
    PriceChange,
    Settlement,
    UnknownCurrency,
    UnknownQuote,
)

if TYPE_CHECKING:
    from meshkit.errors import ServiceError

pytestmark = pytest.mark.unit

REQUEST_ID = "0b06b7a1-1111-4222-8333-444455556666"
ATTEMPT_ID = "0b06b7a1-1111-4222-8333-777788889999"
TIME = Timestamp(seconds=1_800_000_000, nanos=1000)
MOMENT = datetime.fromtimestamp(1_800_000_000, UTC).replace(microsecond=1)
NO_TIME = Timestamp(seconds=2**60)


def fields_of(error: ServiceError) -> list[str]:
    return [violation.field for violation in error.violations]


def order_of(*lines: tuple[str, int], request_id: str = REQUEST_ID, currency: str = "EUR") -> pb.CreateQuoteRequest:
    return pb.CreateQuoteRequest(
        request_id=request_id,
        lines=[pb.PriceLine(sku=sku, quantity=quantity) for sku, quantity in lines],
        currency_code=currency,
        fingerprint="digest",
    )


def change_of(units: int = 12, nanos: int = 500_000_000, currency: str = "EUR", sku: str = "A") -> pb.SetPriceRequest:
    money = PbMoney(currency_code=currency, units=units, nanos=nanos)
    return pb.SetPriceRequest(request_id=REQUEST_ID, sku=sku, list_price=money)


def test_valid_requests_become_domain_values() -> None:
    assert convert.to_line(pb.GetPriceRequest(sku="A", quantity=1, currency_code="KWD")) == (Line("A", 1), "KWD")
    assert convert.to_order(order_of(("A", 1), ("B", 1_000_000), request_id=REQUEST_ID.upper())) == Order(
        REQUEST_ID, (Line("A", 1), Line("B", 1_000_000)), "EUR", "digest"
    )
    assert convert.to_price_change(change_of()) == PriceChange(REQUEST_ID, "A", Money("EUR", 1250))


def test_an_error_names_all_invalid_fields_by_their_paths() -> None:
    request = order_of(("A", 0), ("", 1), ("B", 1_000_001), ("B", 1), request_id="no", currency="")
    request.fingerprint = "f" * 129
    with pytest.raises(InvalidRequest) as caught:
        convert.to_order(request)
    assert fields_of(caught.value) == [
        "request_id",
        "lines[0].quantity",
        "lines[1].sku",
        "lines[2].quantity",
        "lines[3].sku",
        "currency_code",
        "fingerprint",
    ]


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_1_to_100_lines(count: int) -> None:
    lines = [pb.PriceLine(sku="A", quantity=1)] * count
    with pytest.raises(InvalidRequest) as caught:
        convert.to_lines(pb.BatchGetPricesRequest(lines=lines, currency_code="EUR"))
    assert fields_of(caught.value) == ["lines"]


def test_a_batch_may_contain_one_sku_at_several_quantities() -> None:
    lines = [pb.PriceLine(sku="A", quantity=1), pb.PriceLine(sku="A", quantity=10)]
    asked, _ = convert.to_lines(pb.BatchGetPricesRequest(lines=lines, currency_code="EUR"))
    assert asked == [Line("A", 1), Line("A", 10)]


@pytest.mark.parametrize("sku", ["", "A" * 65, "A\x00", "A\n", "A\u202e"])
def test_a_sku_is_1_to_64_printable_characters(sku: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert.to_line(pb.GetPriceRequest(sku=sku, quantity=1, currency_code="EUR"))
    assert fields_of(caught.value) == ["sku"]


@pytest.mark.parametrize("quantity", [0, -1, 1_000_001, -(2**63), 2**63 - 1])
def test_a_quantity_is_1_to_a_million(quantity: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert.to_line(pb.GetPriceRequest(sku="A", quantity=quantity, currency_code="EUR"))
    assert fields_of(caught.value) == ["quantity"]


@pytest.mark.parametrize("currency", ["eur", "XTS", "EURO", "€", "EU", "EUR ", "\x00", "X" * 10_000])
def test_an_unsupported_currency_code_is_an_unknown_currency(currency: str) -> None:
    with pytest.raises(UnknownCurrency) as caught:
        convert.to_line(pb.GetPriceRequest(sku="A", quantity=1, currency_code=currency))
    assert caught.value.fields == {"currency": currency[:64]}


def test_an_error_repeats_little_of_a_large_invalid_request() -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert.to_order(order_of(*[("", 0)] * 100))
    assert len(caught.value.violations) == 30
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "request_id",
    ["", "x", REQUEST_ID[:-1], "{" + REQUEST_ID + "}", "urn:uuid:" + REQUEST_ID, REQUEST_ID.replace("-", "")],
)
def test_an_id_is_a_uuid_in_its_usual_form(request_id: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert.to_order(order_of(("A", 1), request_id=request_id))
    assert fields_of(caught.value) == ["request_id"]
    with pytest.raises(UnknownQuote):
        convert.to_quote_id(pb.GetQuoteRequest(quote_id=request_id))


def test_quote_ids_ignore_case() -> None:
    assert convert.to_quote_id(pb.GetQuoteRequest(quote_id=REQUEST_ID.upper())) == REQUEST_ID


@pytest.mark.parametrize(("units", "nanos"), [(0, 0), (-1, 0), (10_000_000, 10_000_000), (2**63 - 1, 0)])
def test_a_list_price_is_1_to_a_thousand_million_minor_units(units: int, nanos: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert.to_price_change(change_of(units, nanos))
    assert fields_of(caught.value) == ["list_price"]


def test_the_largest_and_the_smallest_list_price_are_accepted() -> None:
    assert convert.to_price_change(change_of(10_000_000, 0)).price == Money("EUR", 1_000_000_000)
    assert convert.to_price_change(change_of(0, 1_000_000, "KWD")).price == Money("KWD", 1)


def test_a_list_price_has_whole_minor_units_of_a_known_currency() -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert.to_price_change(change_of(1, 5_000_000))
    assert fields_of(caught.value) == ["list_price.nanos"]
    with pytest.raises(UnknownCurrency):
        convert.to_price_change(change_of(currency="XTS"))
    with pytest.raises(InvalidRequest) as caught:
        convert.to_price_change(pb.SetPriceRequest(request_id=REQUEST_ID, sku="A"))
    assert fields_of(caught.value) == ["list_price.currency_code"]


def test_an_attempt_id_is_a_uuid_or_missing_in_create_quote() -> None:
    request = order_of(("A", 1))
    assert convert.to_order(request).attempt_id == ""
    request.attempt_id = ATTEMPT_ID.upper()
    assert convert.to_order(request).attempt_id == ATTEMPT_ID
    request.attempt_id = "no"
    with pytest.raises(InvalidRequest) as caught:
        convert.to_order(request)
    assert fields_of(caught.value) == ["attempt_id"]


def test_an_attempt_to_undo_has_both_ids() -> None:
    request = pb.UndoCreateQuoteRequest(request_id=REQUEST_ID.upper(), attempt_id=ATTEMPT_ID.upper())
    assert convert.to_attempt(request) == (REQUEST_ID, ATTEMPT_ID)
    for invalid in ("", "no"):
        with pytest.raises(InvalidRequest) as caught:
            convert.to_attempt(pb.UndoCreateQuoteRequest(request_id=invalid, attempt_id=invalid))
        assert fields_of(caught.value) == ["request_id", "attempt_id"]


def test_a_quote_to_confirm_has_an_id() -> None:
    assert convert.to_quote_id(pb.ConfirmQuoteRequest(quote_id=REQUEST_ID.upper())) == REQUEST_ID
    with pytest.raises(UnknownQuote):
        convert.to_quote_id(pb.ConfirmQuoteRequest(quote_id="no"))


def test_a_page_of_unsettled_quotes_has_a_time_a_size_and_a_start() -> None:
    request = pb.ListUnsettledQuotesRequest(create_time_before=TIME)
    assert convert.to_unsettled_page(request) == (MOMENT, "", 100)
    request = pb.ListUnsettledQuotesRequest(create_time_before=TIME, page_size=1, page_token=REQUEST_ID.upper())
    assert convert.to_unsettled_page(request) == (MOMENT, REQUEST_ID, 1)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.ListUnsettledQuotesRequest(), ["create_time_before"]),
        (pb.ListUnsettledQuotesRequest(create_time_before=NO_TIME, page_size=-1), ["create_time_before", "page_size"]),
        (pb.ListUnsettledQuotesRequest(create_time_before=TIME, page_size=101), ["page_size"]),
        (pb.ListUnsettledQuotesRequest(create_time_before=TIME, page_token="no"), ["page_token"]),  # noqa: S106
    ],
)
def test_an_invalid_page_of_unsettled_quotes_is_rejected(
    request_: pb.ListUnsettledQuotesRequest, fields: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert.to_unsettled_page(request_)
    assert fields_of(caught.value) == fields


def test_a_settlement_has_up_to_a_hundred_ids_together() -> None:
    request = pb.SettleQuotesRequest(
        committed_quote_ids=[REQUEST_ID.upper()] * 50, finished_quote_ids=[ATTEMPT_ID] * 49, create_time_before=TIME
    )
    request.orphaned_quote_ids.append(ATTEMPT_ID)
    expected = Settlement(frozenset([REQUEST_ID]), frozenset([ATTEMPT_ID]), frozenset([ATTEMPT_ID]), MOMENT)
    assert convert.to_settlement(request) == expected
    request.orphaned_quote_ids.append(ATTEMPT_ID)
    with pytest.raises(InvalidRequest) as caught:
        convert.to_settlement(request)
    assert fields_of(caught.value) == ["committed_quote_ids", "finished_quote_ids", "orphaned_quote_ids"]


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.SettleQuotesRequest(committed_quote_ids=[REQUEST_ID]), ["create_time_before"]),
        (pb.SettleQuotesRequest(create_time_before=NO_TIME), ["create_time_before"]),
        (
            pb.SettleQuotesRequest(finished_quote_ids=[REQUEST_ID, "\x00"], create_time_before=TIME),
            ["finished_quote_ids[1]"],
        ),
    ],
)
def test_an_invalid_settlement_is_rejected(request_: pb.SettleQuotesRequest, fields: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert.to_settlement(request_)
    assert fields_of(caught.value) == fields
