"""Clients of the backends. They take and return domain types, and raise ServiceErrors.

Any call may also raise the errors of the transport and of an unavailable database: Unavailable, DeadlineExceeded and so
on. Only this module calls stubs. The channel adds deadlines, retries and spans (meshkit.client.channel). Each call
records its duration for the `Server-Timing` header.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from aiomesh.inventory.v1 import inventory_pb2, inventory_service_pb2, inventory_service_pb2_grpc
from aiomesh.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc
from api_edge.domain import Amount, OrderState, Price, PricedLine, Quote, Reservation, Stock
from meshkit.api import Api
from meshkit.errors import ServiceError, describe, mapping_of
from meshkit.status import service_errors
from meshkit.timings import timed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from google.type.money_pb2 import Money

    from aiomesh.pricing.v1 import pricing_pb2
    from api_edge.domain import Line
    from meshkit.client.channel import Channel

log = logging.getLogger("api_edge.clients")

INVENTORY, PRICING = "inventory", "pricing"

INVENTORY_API = Api(inventory_service_pb2.DESCRIPTOR.services_by_name["InventoryService"])
PRICING_API = Api(pricing_service_pb2.DESCRIPTOR.services_by_name["PricingService"])


@contextmanager
def _call(service: str, method: str) -> Iterator[None]:
    try:
        with timed(service, method), service_errors():
            yield
    except ServiceError as error:
        if not error.domain:  # an error of the transport
            log.info("%s %s: %s", service, method, describe(error))
            error.message = f"{service} {method} failed: {mapping_of(error).code}"
        raise


class InventoryClient:
    """Calls aiomesh.inventory.v1.InventoryService. The caller closes the channel."""

    def __init__(self, channel: Channel) -> None:
        self._stub: inventory_service_pb2_grpc.InventoryServiceAsyncStub = (
            inventory_service_pb2_grpc.InventoryServiceStub(channel)
        )

    async def get_stock(self, sku: str) -> Stock:
        """The stock of one SKU. Raises NotFound (UNKNOWN_SKU)."""
        request = inventory_service_pb2.GetStockRequest(sku=sku)
        with _call(INVENTORY, "GetStock"):
            response = await self._stub.GetStock(request)
        return _stock(response.stock)

    async def batch_get_stock(self, skus: Sequence[str]) -> tuple[list[Stock], list[str]]:
        """The stock of the known SKUs in the order of the request, and the unknown SKUs."""
        request = inventory_service_pb2.BatchGetStockRequest(skus=skus)
        with _call(INVENTORY, "BatchGetStock"):
            response = await self._stub.BatchGetStock(request)
        return [_stock(stock) for stock in response.stocks], list(response.missing_skus)

    async def list_stock(self, page_size: int, page_token: str) -> tuple[list[Stock], str]:
        """One page, ordered by SKU, and the token of the next page. Raises InvalidArgument (INVALID_PAGE_TOKEN)."""
        request = inventory_service_pb2.ListStockRequest(page_size=page_size, page_token=page_token)
        with _call(INVENTORY, "ListStock"):
            response = await self._stub.ListStock(request)
        return [_stock(stock) for stock in response.stocks], response.next_page_token

    async def reserve_stock(
        self, order_id: str, attempt_id: str, lines: Sequence[Line], fingerprint: str
    ) -> Reservation:
        """Reserves the lines under the order's id; if the id already has a reservation, returns that one.

        Raises:
            NotFound: UNKNOWN_SKU.
            FailedPrecondition: INSUFFICIENT_STOCK.
            AlreadyExists: REQUEST_ID_REUSED, the id stands for other lines or another currency.
        """
        request = inventory_service_pb2.ReserveStockRequest(
            request_id=order_id,
            attempt_id=attempt_id,
            lines=[inventory_pb2.ReservationLine(sku=line.sku, quantity=line.quantity) for line in lines],
            fingerprint=fingerprint,
        )
        with _call(INVENTORY, "ReserveStock"):
            response = await self._stub.ReserveStock(request)
        return _reservation(response.reservation)

    async def undo_reserve_stock(self, order_id: str, attempt_id: str) -> None:
        """Undoes one attempt, and the reservation unless another attempt shares it."""
        request = inventory_service_pb2.UndoReserveStockRequest(request_id=order_id, attempt_id=attempt_id)
        with _call(INVENTORY, "UndoReserveStock"):
            await self._stub.UndoReserveStock(request)

    async def get_reservation(self, order_id: str) -> Reservation:
        """The order's reservation. Raises NotFound (UNKNOWN_RESERVATION)."""
        request = inventory_service_pb2.GetReservationRequest(reservation_id=order_id)
        with _call(INVENTORY, "GetReservation"):
            response = await self._stub.GetReservation(request)
        return _reservation(response.reservation)

    async def batch_get_reservations(self, order_ids: Sequence[str]) -> tuple[list[Reservation], list[str]]:
        """The reservations of some orders, and the ids of the orders without one."""
        request = inventory_service_pb2.BatchGetReservationsRequest(reservation_ids=order_ids)
        with _call(INVENTORY, "BatchGetReservations"):
            response = await self._stub.BatchGetReservations(request)
        return [_reservation(found) for found in response.reservations], list(response.missing_reservation_ids)

    async def purge_reservations(self, expire_time_before: datetime) -> int:
        """Deletes some released and expired reservations, and returns how many."""
        request = inventory_service_pb2.PurgeReservationsRequest(expire_time_before=_timestamp(expire_time_before))
        with _call(INVENTORY, "PurgeReservations"):
            response = await self._stub.PurgeReservations(request)
        return response.deleted_count

    async def commit_reservation(self, order_id: str, fingerprint: str) -> Reservation:
        """Removes the units from the warehouse.

        Raises:
            NotFound: UNKNOWN_RESERVATION, also for one with another fingerprint.
            FailedPrecondition: RESERVATION_RELEASED, RESERVATION_EXPIRED.
        """
        request = inventory_service_pb2.CommitReservationRequest(reservation_id=order_id, fingerprint=fingerprint)
        with _call(INVENTORY, "CommitReservation"):
            response = await self._stub.CommitReservation(request)
        return _reservation(response.reservation)

    async def release_reservation(self, order_id: str, fingerprint: str) -> Reservation:
        """Returns the units to the stock.

        Raises:
            NotFound: UNKNOWN_RESERVATION, also for one with another fingerprint.
            FailedPrecondition: RESERVATION_COMMITTED, RESERVATION_EXPIRED.
        """
        request = inventory_service_pb2.ReleaseReservationRequest(reservation_id=order_id, fingerprint=fingerprint)
        with _call(INVENTORY, "ReleaseReservation"):
            response = await self._stub.ReleaseReservation(request)
        return _reservation(response.reservation)


class PricingClient:
    """Calls aiomesh.pricing.v1.PricingService. The caller closes the channel."""

    def __init__(self, channel: Channel) -> None:
        self._stub: pricing_service_pb2_grpc.PricingServiceAsyncStub = pricing_service_pb2_grpc.PricingServiceStub(
            channel
        )

    async def get_price(self, line: Line, currency: str) -> Price:
        """The price of a line. Raises NotFound (UNKNOWN_SKU) or InvalidArgument (UNKNOWN_CURRENCY)."""
        request = pricing_service_pb2.GetPriceRequest(sku=line.sku, quantity=line.quantity, currency_code=currency)
        with _call(PRICING, "GetPrice"):
            response = await self._stub.GetPrice(request)
        return _price(response.price)

    async def batch_get_prices(self, lines: Sequence[Line], currency: str) -> dict[str, Price]:
        """The prices of the known SKUs, by SKU. Raises InvalidArgument (UNKNOWN_CURRENCY)."""
        request = pricing_service_pb2.BatchGetPricesRequest(lines=_price_lines(lines), currency_code=currency)
        with _call(PRICING, "BatchGetPrices"):
            response = await self._stub.BatchGetPrices(request)
        return {price.sku: _price(price) for price in response.prices}

    async def create_quote(
        self, order_id: str, attempt_id: str, lines: Sequence[Line], currency: str, fingerprint: str
    ) -> Quote:
        """Freezes the prices under the order's id, or returns the quote that the id already has.

        Raises:
            NotFound: UNKNOWN_SKU, a line has no price.
            InvalidArgument: UNKNOWN_CURRENCY; INVALID_REQUEST if the total exceeds the largest amount.
            AlreadyExists: REQUEST_ID_REUSED, the id stands for other lines or another currency.
        """
        request = pricing_service_pb2.CreateQuoteRequest(
            request_id=order_id,
            attempt_id=attempt_id,
            lines=_price_lines(lines),
            currency_code=currency,
            fingerprint=fingerprint,
        )
        with _call(PRICING, "CreateQuote"):
            response = await self._stub.CreateQuote(request)
        return _quote(response.quote)

    async def undo_create_quote(self, order_id: str, attempt_id: str) -> None:
        """Takes back one attempt, and the quote if no other one shares it."""
        request = pricing_service_pb2.UndoCreateQuoteRequest(request_id=order_id, attempt_id=attempt_id)
        with _call(PRICING, "UndoCreateQuote"):
            await self._stub.UndoCreateQuote(request)

    async def confirm_quote(self, order_id: str) -> Quote:
        """The order's quote, which no undo takes back any more. Raises NotFound (UNKNOWN_QUOTE)."""
        request = pricing_service_pb2.ConfirmQuoteRequest(quote_id=order_id)
        with _call(PRICING, "ConfirmQuote"):
            response = await self._stub.ConfirmQuote(request)
        return _quote(response.quote)

    async def get_quote(self, order_id: str) -> Quote:
        """The order's quote. Raises NotFound (UNKNOWN_QUOTE)."""
        request = pricing_service_pb2.GetQuoteRequest(quote_id=order_id)
        with _call(PRICING, "GetQuote"):
            response = await self._stub.GetQuote(request)
        return _quote(response.quote)

    async def list_unsettled_quotes(self, create_time_before: datetime, page_token: str) -> tuple[list[str], str]:
        """The ids of orders that are not known to be committed, one page, and the token of the next."""
        request = pricing_service_pb2.ListUnsettledQuotesRequest(
            create_time_before=_timestamp(create_time_before), page_token=page_token
        )
        with _call(PRICING, "ListUnsettledQuotes"):
            response = await self._stub.ListUnsettledQuotes(request)
        return list(response.quote_ids), response.next_page_token

    async def settle_quotes(
        self,
        *,
        committed: Sequence[str],
        finished: Sequence[str],
        orphaned: Sequence[str],
        create_time_before: datetime,
    ) -> None:
        """Keeps the quotes of committed orders for good, and deletes the other ones."""
        request = pricing_service_pb2.SettleQuotesRequest(
            committed_quote_ids=committed,
            finished_quote_ids=finished,
            orphaned_quote_ids=orphaned,
            create_time_before=_timestamp(create_time_before),
        )
        with _call(PRICING, "SettleQuotes"):
            await self._stub.SettleQuotes(request)


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def _stock(stock: inventory_pb2.Stock) -> Stock:
    return Stock(
        sku=stock.sku,
        title=stock.title,
        category=stock.category,
        on_hand=stock.on_hand,
        reserved=stock.reserved,
        available=stock.available,
        version=stock.version,
    )


def _reservation(reservation: inventory_pb2.Reservation) -> Reservation:
    state = inventory_pb2.Reservation.State.Name(reservation.state).removeprefix("STATE_")
    expire_time = reservation.expire_time.ToDatetime(UTC)
    return Reservation(reservation.reservation_id, OrderState(state), expire_time, reservation.fingerprint)


def _price_lines(lines: Sequence[Line]) -> list[pricing_service_pb2.PriceLine]:
    return [pricing_service_pb2.PriceLine(sku=line.sku, quantity=line.quantity) for line in lines]


def _price(price: pricing_pb2.Price) -> Price:
    digits = price.fraction_digits
    return Price(price.quantity, _amount(price.unit_price, digits), _amount(price.total, digits))


def _quote(quote: pricing_pb2.Quote) -> Quote:
    digits = quote.fraction_digits
    lines = tuple(
        PricedLine(line.sku, line.quantity, _amount(line.unit_price, digits), _amount(line.total, digits))
        for line in quote.lines
    )
    return Quote(quote.currency_code, lines, _amount(quote.total, digits), quote.fingerprint)


def _amount(money: Money, digits: int) -> Amount:
    return Amount(money.currency_code, Decimal(money.units) + Decimal(money.nanos).scaleb(-9), digits)
