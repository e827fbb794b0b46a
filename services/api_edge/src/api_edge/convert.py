"""Converts the responses of the backends to domain values.

A response has to answer its request: what it names was asked for, each once, and its amounts add up. Every function
raises ValueError or another exception if it does not, or if a value has no place in the domain.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, TypeVar

from aiomesh.inventory.v1 import inventory_pb2, inventory_service_pb2
from api_edge.domain import (
    Amount,
    OrderState,
    Price,
    PricedLine,
    Quote,
    Reservation,
    Stock,
    UnpricedSku,
    UnstockedSku,
)
from api_edge.rules import MAX_SKU, check_currency
from meshkit.validation import is_uuid, text_violations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from google.type.money_pb2 import Money

    from aiomesh.pricing.v1 import pricing_pb2, pricing_service_pb2
    from api_edge.domain import Line
    from meshkit.errors import ServiceError

Found = TypeVar("Found", "inventory_pb2.Stock", "pricing_pb2.Price")

NANO_DIGITS = 9
"""The decimals of google.type.Money; no currency has more."""

SCALES = [(10**digits, 10 ** (NANO_DIGITS - digits)) for digits in range(NANO_DIGITS + 1)]
"""By the number of decimals: how many minor units make one of a currency, and how many nanos make a minor unit."""


def stock_of(stock: inventory_pb2.Stock, sku: str) -> Stock:
    """The stock of the requested SKU."""
    _require(stock.sku == sku, "the stock is of another SKU")
    return _stock(stock)


def stocks_of(
    response: inventory_service_pb2.BatchGetStockResponse, skus: Sequence[str]
) -> tuple[list[Stock], list[str]]:
    """The stock of the known SKUs in the order of the request, and the unknown SKUs."""
    missing = list(response.missing_skus)
    _require_batch((stock.sku for stock in response.stocks), missing, skus)
    return [_stock(stock) for stock in response.stocks], missing


def stock_of_each(
    response: inventory_service_pb2.BatchGetStockResponse, requests: Sequence[inventory_service_pb2.GetStockRequest]
) -> list[inventory_pb2.Stock | ServiceError]:
    """The stock of each request that travelled in a batch, or the error that it would have got alone."""
    return _of_each(requests, response.stocks, response.missing_skus, UnstockedSku)


def page_of(
    response: inventory_service_pb2.ListStockResponse, page_size: int, page_token: str
) -> tuple[list[Stock], str]:
    """One page of stock, and the token of the next page."""
    skus = [stock.sku for stock in response.stocks]
    _require(len(set(skus)) == len(skus) <= page_size, "the page repeats a SKU, or is too long")
    _require(not any(_is_no_sku(sku) for sku in skus), "a SKU is invalid")
    return [_stock(stock) for stock in response.stocks], _next_page(response.next_page_token, page_token)


def reservation_of(response: inventory_service_pb2.GetReservationResponse, order_id: str) -> Reservation:
    """The reservation of the requested order."""
    return _reservation(response.reservation, order_id)


def new_reservation_of(
    response: inventory_service_pb2.ReserveStockResponse, order_id: str, lines: Sequence[Line], fingerprint: str
) -> Reservation:
    """The reservation that holds the requested lines."""
    _require_lines(response.reservation.lines, lines)
    return _with_fingerprint(_reservation(response.reservation, order_id), fingerprint)


def ended_reservation_of(
    response: inventory_service_pb2.CommitReservationResponse | inventory_service_pb2.ReleaseReservationResponse,
    order_id: str,
    fingerprint: str,
    state: OrderState,
) -> Reservation:
    """The reservation in the state that was requested."""
    reservation = _with_fingerprint(_reservation(response.reservation, order_id), fingerprint)
    _require(reservation.state is state, f"the reservation is {reservation.state}, not {state}")
    return reservation


def reservations_of(
    response: inventory_service_pb2.BatchGetReservationsResponse, order_ids: Sequence[str]
) -> tuple[list[Reservation], list[str]]:
    """The reservations of some orders, and the ids of the orders without one."""
    missing = list(response.missing_reservation_ids)
    _require_batch((found.reservation_id for found in response.reservations), missing, order_ids)
    return [_reservation(found, found.reservation_id) for found in response.reservations], missing


def deleted_count_of(response: inventory_service_pb2.PurgeReservationsResponse) -> int:
    """The number of deleted reservations."""
    _require(response.deleted_count >= 0, "the count is negative")
    return response.deleted_count


def price_of(price: pricing_pb2.Price, line: Line, currency: str) -> Price:
    """The price of the requested line."""
    _require(price.sku == line.sku and price.quantity == line.quantity, "the price is of another line")
    unit_price, total = _amounts(price, currency, _digits(price.fraction_digits))
    return Price(line.quantity, unit_price, total)


def prices_of(
    response: pricing_service_pb2.BatchGetPricesResponse, lines: Sequence[Line], currency: str
) -> dict[str, Price]:
    """The prices of the known SKUs, by SKU."""
    missing = set(response.missing_skus)
    _require_batch((price.sku for price in response.prices), missing, [line.sku for line in lines])
    known = [line for line in lines if line.sku not in missing]
    return {line.sku: price_of(price, line, currency) for price, line in zip(response.prices, known, strict=True)}


def price_of_each(
    response: pricing_service_pb2.BatchGetPricesResponse, requests: Sequence[pricing_service_pb2.GetPriceRequest]
) -> list[pricing_pb2.Price | ServiceError]:
    """The price of each request that travelled in a batch, or the error that it would have got alone."""
    return _of_each(requests, response.prices, response.missing_skus, UnpricedSku)


def quote_of(
    response: pricing_service_pb2.GetQuoteResponse | pricing_service_pb2.ConfirmQuoteResponse, order_id: str
) -> Quote:
    """The quote of the requested order."""
    return _quote(response.quote, order_id)


def new_quote_of(
    response: pricing_service_pb2.CreateQuoteResponse,
    order_id: str,
    lines: Sequence[Line],
    currency: str,
    fingerprint: str,
) -> Quote:
    """The quote for the requested lines."""
    quote = _quote(response.quote, order_id)
    _require_lines(quote.lines, lines)
    _require(quote.currency == currency, "the quote has another currency")
    _require(quote.fingerprint == fingerprint, "the quote has another fingerprint")
    return quote


def quote_ids_of(response: pricing_service_pb2.ListUnsettledQuotesResponse, page_token: str) -> tuple[list[str], str]:
    """The ids of some quotes, and the token of the next page."""
    ids = list(response.quote_ids)
    _require(len(set(ids)) == len(ids) and all(map(is_uuid, ids)), "an id is invalid or repeated")
    return ids, _next_page(response.next_page_token, page_token)


def _require(answers: bool, problem: str) -> None:  # noqa: FBT001 - as of assert
    if not answers:
        raise ValueError(problem)


def _require_batch(found: Iterable[str], missing: Iterable[str], requested: Sequence[str]) -> None:
    """Each requested key is found or missing, in the order of the request."""
    absent = set(missing)
    _require(absent.issubset(requested), "the batch misses what was not requested")
    _require(list(found) == [key for key in requested if key not in absent], "the batch is not the requested one")


def _of_each(
    requests: Sequence[inventory_service_pb2.GetStockRequest] | Sequence[pricing_service_pb2.GetPriceRequest],
    found: Iterable[Found],
    missing: Iterable[str],
    error: Callable[[str], ServiceError],
) -> list[Found | ServiceError]:
    """What was found for each request, or the error of its SKU."""
    skus, values, absent = [request.sku for request in requests], list(found), set(missing)
    _require_batch([value.sku for value in values], absent, skus)
    rest = iter(values)
    return [error(sku) if sku in absent else next(rest) for sku in skus]


def _require_lines(found: Iterable[inventory_pb2.ReservationLine | PricedLine], requested: Sequence[Line]) -> None:
    pairs = [(line.sku, line.quantity) for line in found]
    _require(pairs == [(line.sku, line.quantity) for line in requested], "the lines are not the requested ones")


def _with_fingerprint(reservation: Reservation, fingerprint: str) -> Reservation:
    """The reservation, which has to have the requested fingerprint, if one was requested."""
    _require(fingerprint in {"", reservation.fingerprint}, "the reservation has another fingerprint")
    return reservation


def _next_page(token: str, previous: str) -> str:
    _require(not token or token != previous, "the next page is the same page")
    return token


def _is_no_sku(sku: str) -> bool:
    return any(text_violations("sku", sku, longest=MAX_SKU))


def _stock(stock: inventory_pb2.Stock) -> Stock:
    on_hand, reserved, available = stock.on_hand, stock.reserved, stock.available
    _require(on_hand - reserved == available and reserved >= 0 and available >= 0, "the units do not add up")
    return Stock(stock.sku, stock.title, stock.category, on_hand, reserved, available, stock.version)


def _reservation(message: inventory_pb2.Reservation, order_id: str) -> Reservation:
    _require(message.reservation_id == order_id, "the reservation has another id")
    _require(message.HasField("expire_time"), "the reservation has no expire_time")
    state = inventory_pb2.Reservation.State.Name(message.state).removeprefix("STATE_")
    expire_time = message.expire_time.ToDatetime(UTC)
    return Reservation(order_id, OrderState(state), expire_time, message.fingerprint)


def _quote(message: pricing_pb2.Quote, order_id: str) -> Quote:
    _require(message.quote_id == order_id, "the quote has another id")
    check_currency(message.currency_code)
    currency, digits = message.currency_code, _digits(message.fraction_digits)
    lines = tuple(_priced_line(line, currency, digits) for line in message.lines)
    total = _amount(message.total, currency, digits)
    _require(bool(lines), "the quote has no lines")
    _require(total.minor == sum(line.total.minor for line in lines), "the total is not that of the lines")
    return Quote(currency, lines, total, message.fingerprint)


def _priced_line(line: pricing_pb2.QuoteLine, currency: str, digits: int) -> PricedLine:
    _require(bool(line.sku) and line.quantity > 0, "a line has no units")
    return PricedLine(line.sku, line.quantity, *_amounts(line, currency, digits))


def _amounts(line: pricing_pb2.Price | pricing_pb2.QuoteLine, currency: str, digits: int) -> tuple[Amount, Amount]:
    """The price of one unit and of all."""
    unit_price, total = _amount(line.unit_price, currency, digits), _amount(line.total, currency, digits)
    _require(unit_price.minor * line.quantity == total.minor, "the total is not that of the units")
    return unit_price, total


def _digits(digits: int) -> int:
    _require(0 <= digits <= NANO_DIGITS, "a currency has no such number of digits")
    return digits


def _amount(money: Money, currency: str, digits: int) -> Amount:
    _require(money.currency_code == currency, "an amount has another currency")
    units, (scale, nanos) = money.units, SCALES[digits]
    part, rest = divmod(money.nanos, nanos)
    _require(units >= 0 and 0 <= part < scale and not rest, "an amount is negative or has other digits")
    return Amount(currency, units * scale + part, digits)
