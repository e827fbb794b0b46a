"""The client of the RPCs, in any protocol of the same messages, and its calls over gRPC."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from aiomesh.storefront.v1 import storefront_pb2
from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from api_edge.domain import (
    Amount,
    Degradation,
    Order,
    OrderState,
    Price,
    PricedLine,
    Product,
    Quote,
    Reservation,
    Stock,
)
from meshkit.errors import FieldViolation
from meshkit.status import read_error
from tests.edge.protocols.client import SECONDS, Details, Failure, Placed, Trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.type.money_pb2 import Money

    from api_edge.domain import Line


Metadata = tuple[tuple[str, str], ...]


class Caller(Protocol):
    """Makes calls in one protocol."""

    def status_of(self, code: str) -> str:
        """The status that stands for a code of gRPC."""

    async def call(self, method: str, request: Any, metadata: Metadata) -> tuple[Any, dict[str, Any]]:
        """The response and its trailing metadata. Raises Failure."""


class RpcClient:
    """Calls the RPCs of the edge. See ShopClient."""

    def __init__(self, caller: Caller) -> None:
        self.trace = Trace()
        self.invalid: int | str = caller.status_of("INVALID_ARGUMENT")
        self._caller = caller

    def status_of(self, code: str) -> int | str:
        return self._caller.status_of(code)

    def delay_of(self, seconds: float) -> float:
        return seconds

    async def product(self, sku: str, **parameters: Any) -> Product:
        response, _ = await self._call("GetProduct", pb.GetProductRequest(sku=sku, **parameters))
        return product(response.product)

    async def products(self, skus: Sequence[str] = (), **parameters: Any) -> tuple[list[Product], str]:
        response, _ = await self._call("ListProducts", pb.ListProductsRequest(skus=skus, **parameters))
        return [product(each) for each in response.products], response.next_page_token

    async def place_order(
        self, lines: Sequence[Line], *, keys: Sequence[str] = (), currency: str | None = None
    ) -> Placed:
        new = [pb.NewOrderLine(sku=line.sku, quantity=line.quantity) for line in lines]
        request = pb.PlaceOrderRequest(lines=new, currency=currency)
        response, trailing = await self._call("PlaceOrder", request, *(("idempotency-key", key) for key in keys))
        return Placed(order(response.order), trailing["idempotency-key"])

    async def order(self, order_id: str) -> Order:
        response, _ = await self._call("GetOrder", pb.GetOrderRequest(order_id=order_id))
        return order(response.order)

    async def commit_order(self, order_id: str) -> Order:
        response, _ = await self._call("CommitOrder", pb.CommitOrderRequest(order_id=order_id))
        return order(response.order)

    async def release_order(self, order_id: str) -> Order:
        response, _ = await self._call("ReleaseOrder", pb.ReleaseOrderRequest(order_id=order_id))
        return order(response.order)

    async def _call(self, method: str, request: object, *metadata: tuple[str, str]) -> tuple[Any, dict[str, Any]]:
        return await self._caller.call(method, request, (*metadata, ("traceparent", self.trace.begin())))


class GrpcCaller:
    """Calls over gRPC. See Caller."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = pb_grpc.StorefrontServiceStub(channel)

    def status_of(self, code: str) -> str:
        return code

    async def call(self, method: str, request: object, metadata: Metadata) -> tuple[Any, dict[str, Any]]:
        call = getattr(self._stub, method)(request, metadata=metadata, timeout=SECONDS)
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            raise Failure(error.code().name, details(error)) from error
        return response, dict(await call.trailing_metadata())


def details(failure: grpc.aio.AioRpcError) -> Details:
    """The error in a status."""
    error = read_error(failure)
    return Details(
        failure.details() or "", error.reason, error.domain, error.fields, error.violations, error.retry_after
    )


def details_of(message: str, messages: Iterable[tuple[str, bytes]]) -> Details:
    """The error in the details of google.rpc, by the names of their types."""
    found = dict(messages)
    info = ErrorInfo.FromString(found["google.rpc.ErrorInfo"])
    bad = BadRequest.FromString(found.get("google.rpc.BadRequest", b""))
    retry = found.get("google.rpc.RetryInfo")
    return Details(
        message,
        info.reason,
        info.domain,
        dict(info.metadata),
        tuple(FieldViolation(each.field, each.description) for each in bad.field_violations),
        None if retry is None else RetryInfo.FromString(retry).retry_delay.ToTimedelta().total_seconds(),
    )


def product(message: storefront_pb2.Product) -> Product:
    """A product of the domain."""
    stock, price = message.stock, message.price
    return Product(
        Stock(
            message.sku,
            message.title,
            message.category,
            on_hand=stock.on_hand,
            reserved=stock.reserved,
            available=stock.available,
            version=stock.version,
        ),
        Price(
            price.quantity,
            amount(price.unit_price, price.fraction_digits),
            amount(price.total, price.fraction_digits),
        )
        if message.HasField("price")
        else None,
        tuple(Degradation(each.service, each.code, each.reason) for each in message.problems),
    )


def order(message: storefront_pb2.Order) -> Order:
    """An order of the domain; no protocol shows its fingerprint."""
    digits = message.fraction_digits
    lines = [
        PricedLine(line.sku, line.quantity, amount(line.unit_price, digits), amount(line.total, digits))
        for line in message.lines
    ]
    state = OrderState(storefront_pb2.Order.State.Name(message.state).removeprefix("STATE_"))
    return Order(
        Reservation(message.order_id, state, message.expire_time.ToDatetime(UTC), ""),
        Quote(message.currency, tuple(lines), amount(message.total, digits), ""),
    )


def amount(money: Money, digits: int) -> Amount:
    """An amount of the domain."""
    return Amount(money.currency_code, (money.units * 10**9 + money.nanos) // 10 ** (9 - digits), digits)
