"""Converts protobuf to domain values and back. Validates requests: an error names every invalid field.

Values that a response has by the hundred are written into its fields, because a message that becomes a field of another
one is copied by way of its bytes.
"""

from __future__ import annotations

from datetime import UTC
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from aiomesh.pricing.v1 import pricing_pb2
from meshkit.errors import FieldViolation
from meshkit.validation import is_uuid, reject, text_violations, uuid_violations
from pricing.domain import (
    MAX_LINES,
    MAX_LIST_PRICE,
    MAX_QUANTITY,
    MAX_QUOTES,
    MINOR_DIGITS,
    InvalidRequest,
    Line,
    Money,
    Order,
    PriceChange,
    Settlement,
    UnknownQuote,
    check_currency,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from google.type.money_pb2 import Money as PbMoney

    from aiomesh.pricing.v1 import pricing_service_pb2 as pb
    from pricing.domain import Price, Quote

_NANOS = 1_000_000_000
_NANOS_PER_MINOR = {currency: _NANOS // 10**digits for currency, digits in MINOR_DIGITS.items()}
_sku_violations = partial(text_violations, longest=64)
_fingerprint_violations = partial(text_violations, longest=128)


def to_line(request: pb.GetPriceRequest) -> tuple[Line, str]:
    """The line and the currency of a GetPrice request.

    Raises:
        InvalidRequest: a field is missing or out of range.
        UnknownCurrency: the currency code is not supported.
    """
    reject([*_line_violations(request, ""), *_missing_currency(request.currency_code)], InvalidRequest)
    return Line(request.sku, request.quantity), check_currency(request.currency_code)


def to_lines(request: pb.BatchGetPricesRequest) -> tuple[list[Line], str]:
    """The lines and the currency of a BatchGetPrices request.

    Raises:
        InvalidRequest: a field is missing or out of range.
        UnknownCurrency: the currency code is not supported.
    """
    reject([*_lines_violations(request.lines), *_missing_currency(request.currency_code)], InvalidRequest)
    return [Line(line.sku, line.quantity) for line in request.lines], check_currency(request.currency_code)


def to_order(request: pb.CreateQuoteRequest) -> Order:
    """The domain form of a CreateQuote request.

    Raises:
        InvalidRequest: a field is missing or out of range.
        UnknownCurrency: the currency code is not supported.
    """
    reject(
        [
            *uuid_violations("request_id", request.request_id),
            *(uuid_violations("attempt_id", request.attempt_id) if request.attempt_id else ()),
            *_lines_violations(request.lines),
            *_repeated_skus(request.lines),
            *_missing_currency(request.currency_code),
            *_fingerprint_violations("fingerprint", request.fingerprint),
        ],
        InvalidRequest,
    )
    return Order(
        request_id=request.request_id.lower(),
        lines=tuple(Line(line.sku, line.quantity) for line in request.lines),
        currency=check_currency(request.currency_code),
        fingerprint=request.fingerprint,
        attempt_id=request.attempt_id.lower(),
    )


def to_attempt(request: pb.UndoCreateQuoteRequest) -> tuple[str, str]:
    """The request id and the attempt id of an UndoCreateQuote request.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    violations = (uuid_violations(field, getattr(request, field)) for field in ("request_id", "attempt_id"))
    reject(chain.from_iterable(violations), InvalidRequest)
    return request.request_id.lower(), request.attempt_id.lower()


def to_quote_id(request: pb.GetQuoteRequest | pb.ConfirmQuoteRequest) -> str:
    """The id of a GetQuote or ConfirmQuote request.

    Raises:
        UnknownQuote: the id is not a UUID, so no quote has it.
    """
    if not is_uuid(request.quote_id):
        raise UnknownQuote(request.quote_id)
    return request.quote_id.lower()


def to_unsettled_page(request: pb.ListUnsettledQuotesRequest) -> tuple[datetime, str, int]:
    """The time, the id after which the page starts (empty for the first page), and the page size.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    reject(
        [
            *_time_violations(request),
            *_page_size_violations(request.page_size),
            *(uuid_violations("page_token", request.page_token) if request.page_token else ()),
        ],
        InvalidRequest,
    )
    return request.create_time_before.ToDatetime(UTC), request.page_token.lower(), request.page_size or MAX_QUOTES


def to_settlement(request: pb.SettleQuotesRequest) -> Settlement:
    """The domain form of a SettleQuotes request.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    reject(
        [
            *_quote_ids_violations(request),
            *_time_violations(request),
        ],
        InvalidRequest,
    )
    return Settlement(
        committed=frozenset(map(str.lower, request.committed_quote_ids)),
        finished=frozenset(map(str.lower, request.finished_quote_ids)),
        orphaned=frozenset(map(str.lower, request.orphaned_quote_ids)),
        create_time_before=request.create_time_before.ToDatetime(UTC),
    )


def to_price_change(request: pb.SetPriceRequest) -> PriceChange:
    """The domain form of a SetPrice request.

    Raises:
        InvalidRequest: a field is missing or out of range.
        UnknownCurrency: the currency code is not supported.
    """
    reject(
        [
            *uuid_violations("request_id", request.request_id),
            *_sku_violations("sku", request.sku),
            *_missing_currency(request.list_price.currency_code, "list_price.currency_code"),
        ],
        InvalidRequest,
    )
    check_currency(request.list_price.currency_code)
    reject(_list_price_violations(request.list_price), InvalidRequest)
    return PriceChange(request.request_id.lower(), request.sku, to_money(request.list_price))


def write_price(price: Price, message: pricing_pb2.Price) -> None:
    """Writes a price into its field of a response."""
    message.sku, message.quantity = price.line
    message.promotion = price.promotion
    message.fraction_digits = MINOR_DIGITS[price.total.currency]
    write_money(price.unit_price, message.unit_price)
    write_money(price.total, message.total)
    write_money(price.list_price, message.list_price)


def from_quote(quote: Quote) -> pricing_pb2.Quote:
    """The protobuf message of a quote."""
    create_time = Timestamp()
    create_time.FromDatetime(quote.create_time)
    message = pricing_pb2.Quote(
        quote_id=quote.quote_id,
        currency_code=quote.total.currency,
        create_time=create_time,
        fraction_digits=MINOR_DIGITS[quote.total.currency],
        fingerprint=quote.fingerprint,
    )
    for entry in quote.lines:
        line = message.lines.add(sku=entry.line.sku, quantity=entry.line.quantity)
        write_money(entry.unit_price, line.unit_price)
        write_money(entry.total, line.total)
    write_money(quote.total, message.total)
    return message


def to_money(money: PbMoney) -> Money:
    """The amount in whole minor units; check `money_violations` first."""
    return Money(money.currency_code, _nanos(money) // _NANOS_PER_MINOR[money.currency_code])


def write_money(money: Money, message: PbMoney) -> None:
    """Writes an amount into a field that is a google.type.Money, whose units and nanos have the same sign."""
    sign = -1 if money.minor < 0 else 1
    units, nanos = divmod(abs(money.minor) * _NANOS_PER_MINOR[money.currency], _NANOS)
    message.currency_code, message.units, message.nanos = money.currency, sign * units, sign * nanos


def money_violations(money: PbMoney, path: str) -> Iterator[FieldViolation]:
    """The reasons why an amount in a known currency is not in whole minor units."""
    if not -_NANOS < money.nanos < _NANOS:
        yield FieldViolation(f"{path}.nanos", "must be between -999,999,999 and +999,999,999")
    elif money.units * money.nanos < 0:
        yield FieldViolation(f"{path}.nanos", "must have the same sign as units")
    elif _nanos(money) % _NANOS_PER_MINOR[money.currency_code]:
        digits = MINOR_DIGITS[money.currency_code]
        yield FieldViolation(f"{path}.nanos", f"{money.currency_code} has {digits} decimal digits")


def _nanos(money: PbMoney) -> int:
    nanos: int = money.units * _NANOS + money.nanos
    return nanos


def _list_price_violations(money: PbMoney) -> Iterator[FieldViolation]:
    violations = list(money_violations(money, "list_price"))
    yield from violations
    if not violations and not 1 <= to_money(money).minor <= MAX_LIST_PRICE:
        yield FieldViolation("list_price", f"must be 1 to {MAX_LIST_PRICE} minor units of {money.currency_code}")


def _lines_violations(lines: Sequence[pb.PriceLine]) -> Iterator[FieldViolation]:
    if not 1 <= len(lines) <= MAX_LINES:
        yield FieldViolation("lines", f"must have 1 to {MAX_LINES} lines, not {len(lines)}")
        return
    for index, line in enumerate(lines):
        yield from _line_violations(line, f"lines[{index}].")


def _line_violations(line: pb.PriceLine | pb.GetPriceRequest, path: str) -> Iterator[FieldViolation]:
    yield from _sku_violations(f"{path}sku", line.sku)
    if not 1 <= line.quantity <= MAX_QUANTITY:
        yield FieldViolation(f"{path}quantity", f"must be 1 to {MAX_QUANTITY}")


def _repeated_skus(lines: Iterable[pb.PriceLine]) -> Iterator[FieldViolation]:
    seen: set[str] = set()
    for index, line in enumerate(lines):
        if line.sku in seen:
            yield FieldViolation(f"lines[{index}].sku", "repeats an earlier line; send one line for each SKU")
        seen.add(line.sku)


def _missing_currency(currency: str, field: str = "currency_code") -> Iterator[FieldViolation]:
    if not currency:
        yield FieldViolation(field, "is missing")


def _quote_ids_violations(request: pb.SettleQuotesRequest) -> Iterator[FieldViolation]:
    fields = ("committed_quote_ids", "finished_quote_ids", "orphaned_quote_ids")
    if sum(len(getattr(request, field)) for field in fields) > MAX_QUOTES:
        yield from (FieldViolation(field, f"must have at most {MAX_QUOTES} ids together") for field in fields)
        return
    for field in fields:
        for index, quote_id in enumerate(getattr(request, field)):
            yield from uuid_violations(f"{field}[{index}]", quote_id)


def _page_size_violations(page_size: int) -> Iterator[FieldViolation]:
    if not 0 <= page_size <= MAX_QUOTES:
        yield FieldViolation("page_size", f"must be 1 to {MAX_QUOTES}, or 0 for {MAX_QUOTES}")


def _time_violations(request: pb.ListUnsettledQuotesRequest | pb.SettleQuotesRequest) -> Iterator[FieldViolation]:
    if not request.HasField("create_time_before"):
        yield FieldViolation("create_time_before", "is missing")
    try:
        request.create_time_before.ToDatetime(UTC)
    except (OverflowError, ValueError):
        yield FieldViolation("create_time_before", "must be a time of the years 1 to 9999")
