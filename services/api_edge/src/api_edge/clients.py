"""Clients of the backends. They take and return domain types, and raise ServiceErrors.

Any call may also raise the errors of the transport and of an unavailable database: Unavailable, DeadlineExceeded and so
on. A response that does not answer its request is the backend's Internal (api_edge.convert). Only this module calls
stubs. The channel adds deadlines, retries and spans (meshkit.client.channel). The lookups of single products travel
together (meshkit.client.batching). Each call records its duration for the `Server-Timing` header.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from aiomesh.inventory.v1 import inventory_pb2, inventory_service_pb2, inventory_service_pb2_grpc
from aiomesh.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc
from api_edge import convert
from api_edge.domain import OrderState
from meshkit.api import Api
from meshkit.client.batch_call import BatchMethod
from meshkit.errors import Internal, ServiceError, describe, mapping_of
from meshkit.status import service_errors
from meshkit.timings import timed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from datetime import datetime
    from typing import Unpack

    from aiomesh.pricing.v1 import pricing_pb2
    from api_edge.domain import Line, Price, Quote, Reservation, Stock
    from meshkit.client.channel import Channel
    from meshkit.client.types import CallOptions

Request = TypeVar("Request")
Response = TypeVar("Response")
T = TypeVar("T")

log = logging.getLogger("api_edge.clients")

INVENTORY, PRICING = "inventory", "pricing"

INVENTORY_API = Api(inventory_service_pb2.DESCRIPTOR.services_by_name["InventoryService"])
PRICING_API = Api(pricing_service_pb2.DESCRIPTOR.services_by_name["PricingService"])


async def _ask(
    service: str,
    method: str,
    call: Callable[[Request], Awaitable[Response]],
    request: Request,
    read: Callable[[Response], T],
) -> T:
    """What `read` makes of the response to a request. If it fails, the response makes no sense: Internal."""
    try:
        with timed(service, method), service_errors():
            response = await call(request)
        return _understand(response, read)
    except ServiceError as error:
        if not error.domain:  # an error of the transport, or a response that makes no sense
            log.info("%s %s: %s", service, method, describe(error))
            error.message = f"{service} {method} failed: {mapping_of(error).code}"
        raise


def _understand(response: Response, read: Callable[[Response], T]) -> T:
    try:
        return read(response)
    except Exception as error:
        raise Internal("the response makes no sense") from error


def _nothing(_response: object) -> None:
    """Reads a response that has only to exist."""


class InventoryClient:
    """Calls aiomesh.inventory.v1.InventoryService. The caller closes the channel."""

    def __init__(self, channel: Channel) -> None:
        self._stub: inventory_service_pb2_grpc.InventoryServiceAsyncStub = (
            inventory_service_pb2_grpc.InventoryServiceStub(channel)
        )
        self._get_stock = channel.batching(
            BatchMethod(
                f"{INVENTORY_API.name}/GetStock",
                single=self._stock,
                batch=self._stub.BatchGetStock,
                join=_batch_of_stock,
                split=convert.stock_of_each,
            )
        )

    async def get_stock(self, sku: str) -> Stock:
        """The stock of one SKU. Raises NotFound (UNKNOWN_SKU)."""
        request = inventory_service_pb2.GetStockRequest(sku=sku)
        read = partial(convert.stock_of, sku=sku)
        return await _ask(INVENTORY, "GetStock", self._get_stock, request, read)

    async def _stock(
        self, request: inventory_service_pb2.GetStockRequest, **options: Unpack[CallOptions]
    ) -> inventory_pb2.Stock:
        return (await self._stub.GetStock(request, **options)).stock

    async def batch_get_stock(self, skus: Sequence[str]) -> tuple[list[Stock], list[str]]:
        """The stock of the known SKUs in the order of the request, and the unknown SKUs."""
        request = inventory_service_pb2.BatchGetStockRequest(skus=skus)
        read = partial(convert.stocks_of, skus=skus)
        return await _ask(INVENTORY, "BatchGetStock", self._stub.BatchGetStock, request, read)

    async def list_stock(self, page_size: int, page_token: str) -> tuple[list[Stock], str]:
        """One page, ordered by SKU, and the token of the next page. Raises InvalidArgument (INVALID_PAGE_TOKEN)."""
        request = inventory_service_pb2.ListStockRequest(page_size=page_size, page_token=page_token)
        read = partial(convert.page_of, page_size=page_size, page_token=page_token)
        return await _ask(INVENTORY, "ListStock", self._stub.ListStock, request, read)

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
        read = partial(convert.new_reservation_of, order_id=order_id, lines=lines, fingerprint=fingerprint)
        return await _ask(INVENTORY, "ReserveStock", self._stub.ReserveStock, request, read)

    async def undo_reserve_stock(self, order_id: str, attempt_id: str) -> None:
        """Undoes one attempt, and the reservation unless another attempt shares it."""
        request = inventory_service_pb2.UndoReserveStockRequest(request_id=order_id, attempt_id=attempt_id)
        await _ask(INVENTORY, "UndoReserveStock", self._stub.UndoReserveStock, request, _nothing)

    async def get_reservation(self, order_id: str) -> Reservation:
        """The order's reservation. Raises NotFound (UNKNOWN_RESERVATION)."""
        request = inventory_service_pb2.GetReservationRequest(reservation_id=order_id)
        read = partial(convert.reservation_of, order_id=order_id)
        return await _ask(INVENTORY, "GetReservation", self._stub.GetReservation, request, read)

    async def batch_get_reservations(self, order_ids: Sequence[str]) -> tuple[list[Reservation], list[str]]:
        """The reservations of some orders, and the ids of the orders without one."""
        request = inventory_service_pb2.BatchGetReservationsRequest(reservation_ids=order_ids)
        read = partial(convert.reservations_of, order_ids=order_ids)
        return await _ask(INVENTORY, "BatchGetReservations", self._stub.BatchGetReservations, request, read)

    async def purge_reservations(self, expire_time_before: datetime) -> int:
        """Deletes some released and expired reservations, and returns how many."""
        request = inventory_service_pb2.PurgeReservationsRequest(expire_time_before=_timestamp(expire_time_before))
        read = convert.deleted_count_of
        return await _ask(INVENTORY, "PurgeReservations", self._stub.PurgeReservations, request, read)

    async def commit_reservation(self, order_id: str, fingerprint: str) -> Reservation:
        """Removes the units from the warehouse.

        Raises:
            NotFound: UNKNOWN_RESERVATION, also for one with another fingerprint.
            FailedPrecondition: RESERVATION_RELEASED, RESERVATION_EXPIRED.
        """
        request = inventory_service_pb2.CommitReservationRequest(reservation_id=order_id, fingerprint=fingerprint)
        read = partial(
            convert.ended_reservation_of, order_id=order_id, fingerprint=fingerprint, state=OrderState.COMMITTED
        )
        return await _ask(INVENTORY, "CommitReservation", self._stub.CommitReservation, request, read)

    async def release_reservation(self, order_id: str, fingerprint: str) -> Reservation:
        """Returns the units to the stock.

        Raises:
            NotFound: UNKNOWN_RESERVATION, also for one with another fingerprint.
            FailedPrecondition: RESERVATION_COMMITTED, RESERVATION_EXPIRED.
        """
        request = inventory_service_pb2.ReleaseReservationRequest(reservation_id=order_id, fingerprint=fingerprint)
        read = partial(
            convert.ended_reservation_of, order_id=order_id, fingerprint=fingerprint, state=OrderState.RELEASED
        )
        return await _ask(INVENTORY, "ReleaseReservation", self._stub.ReleaseReservation, request, read)


class PricingClient:
    """Calls aiomesh.pricing.v1.PricingService. The caller closes the channel."""

    def __init__(self, channel: Channel) -> None:
        self._stub: pricing_service_pb2_grpc.PricingServiceAsyncStub = pricing_service_pb2_grpc.PricingServiceStub(
            channel
        )
        self._get_price = channel.batching(
            BatchMethod(
                f"{PRICING_API.name}/GetPrice",
                single=self._price,
                batch=self._stub.BatchGetPrices,
                join=_batch_of_prices,
                split=convert.price_of_each,
                key=lambda request: request.currency_code,
            )
        )

    async def get_price(self, line: Line, currency: str) -> Price:
        """The price of a line. Raises NotFound (UNKNOWN_SKU) or InvalidArgument (UNKNOWN_CURRENCY)."""
        request = pricing_service_pb2.GetPriceRequest(sku=line.sku, quantity=line.quantity, currency_code=currency)
        read = partial(convert.price_of, line=line, currency=currency)
        return await _ask(PRICING, "GetPrice", self._get_price, request, read)

    async def _price(
        self, request: pricing_service_pb2.GetPriceRequest, **options: Unpack[CallOptions]
    ) -> pricing_pb2.Price:
        return (await self._stub.GetPrice(request, **options)).price

    async def batch_get_prices(self, lines: Sequence[Line], currency: str) -> dict[str, Price]:
        """The prices of the known SKUs, by SKU. Raises InvalidArgument (UNKNOWN_CURRENCY)."""
        request = pricing_service_pb2.BatchGetPricesRequest(currency_code=currency)
        _add_lines(request, lines)
        read = partial(convert.prices_of, lines=lines, currency=currency)
        return await _ask(PRICING, "BatchGetPrices", self._stub.BatchGetPrices, request, read)

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
            currency_code=currency,
            fingerprint=fingerprint,
        )
        _add_lines(request, lines)
        read = partial(convert.new_quote_of, order_id=order_id, lines=lines, currency=currency, fingerprint=fingerprint)
        return await _ask(PRICING, "CreateQuote", self._stub.CreateQuote, request, read)

    async def undo_create_quote(self, order_id: str, attempt_id: str) -> None:
        """Takes back one attempt, and the quote if no other one shares it."""
        request = pricing_service_pb2.UndoCreateQuoteRequest(request_id=order_id, attempt_id=attempt_id)
        await _ask(PRICING, "UndoCreateQuote", self._stub.UndoCreateQuote, request, _nothing)

    async def confirm_quote(self, order_id: str) -> Quote:
        """The order's quote, which no undo takes back any more. Raises NotFound (UNKNOWN_QUOTE)."""
        request = pricing_service_pb2.ConfirmQuoteRequest(quote_id=order_id)
        read = partial(convert.quote_of, order_id=order_id)
        return await _ask(PRICING, "ConfirmQuote", self._stub.ConfirmQuote, request, read)

    async def get_quote(self, order_id: str) -> Quote:
        """The order's quote. Raises NotFound (UNKNOWN_QUOTE)."""
        request = pricing_service_pb2.GetQuoteRequest(quote_id=order_id)
        read = partial(convert.quote_of, order_id=order_id)
        return await _ask(PRICING, "GetQuote", self._stub.GetQuote, request, read)

    async def list_unsettled_quotes(self, create_time_before: datetime, page_token: str) -> tuple[list[str], str]:
        """The ids of orders that are not known to be committed, one page, and the token of the next."""
        request = pricing_service_pb2.ListUnsettledQuotesRequest(
            create_time_before=_timestamp(create_time_before), page_token=page_token
        )
        read = partial(convert.quote_ids_of, page_token=page_token)
        return await _ask(PRICING, "ListUnsettledQuotes", self._stub.ListUnsettledQuotes, request, read)

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
        await _ask(PRICING, "SettleQuotes", self._stub.SettleQuotes, request, _nothing)


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def _add_lines(
    request: pricing_service_pb2.BatchGetPricesRequest | pricing_service_pb2.CreateQuoteRequest,
    lines: Iterable[Line | pricing_service_pb2.GetPriceRequest],
) -> None:
    for line in lines:
        request.lines.add(sku=line.sku, quantity=line.quantity)


def _batch_of_stock(requests: Sequence[inventory_service_pb2.GetStockRequest]) -> object:
    return inventory_service_pb2.BatchGetStockRequest(skus=[request.sku for request in requests])


def _batch_of_prices(requests: Sequence[pricing_service_pb2.GetPriceRequest]) -> object:
    batch = pricing_service_pb2.BatchGetPricesRequest(currency_code=requests[0].currency_code)
    _add_lines(batch, requests)
    return batch
