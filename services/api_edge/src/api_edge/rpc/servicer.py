"""The RPC port of the storefront. ServiceErrors pass through: the server's interceptor turns them into a status."""

# ruff: noqa: N802 - names and signatures are gRPC's
from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from opentelemetry.trace import format_span_id, format_trace_id

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from api_edge.rpc import convert
from api_edge.rules import MAX_SECONDS, ORDER_SECONDS, READ_SECONDS, key_of
from meshkit.current_span import current_span_context
from meshkit.deadline import budget
from meshkit.errors import ServiceError, retry_delay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from api_edge.storefront import Storefront

KEY = "idempotency-key"
"""The metadata of a request, and of its response, with the key of an order."""


class RpcContext(Protocol):
    """What the servicer uses of a call's context, whose metadata have names in lower case."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """The metadata that the client sent."""

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None without one."""

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...], /) -> None:
        """Sets the metadata that the client gets after the response, or with the error."""


class StorefrontServicer(pb_grpc.StorefrontServiceServicer):
    """Implements `storefront_service.proto` on a storefront. Stateless."""

    def __init__(self, storefront: Storefront) -> None:
        self._storefront = storefront

    async def GetProduct(self, request: pb.GetProductRequest, context: RpcContext) -> pb.GetProductResponse:
        """Reads a product with its stock and price."""
        with _request(context, READ_SECONDS):
            line, currency = convert.to_line(request), convert.to_currency(request)
            product = await self._storefront.product(line, currency, strict=request.strict)
        return pb.GetProductResponse(product=convert.from_product(product))

    async def ListProducts(self, request: pb.ListProductsRequest, context: RpcContext) -> pb.ListProductsResponse:
        """Reads a page of all products, or some of them."""
        quantity, currency, strict = convert.to_quantity(request), convert.to_currency(request), request.strict
        with _request(context, READ_SECONDS):
            if request.skus:
                products, token = await self._storefront.products(request.skus, currency, quantity, strict=strict), ""
            else:
                size = convert.to_page_size(request)
                products, token = await self._storefront.page(
                    size, request.page_token, currency, quantity, strict=strict
                )
        return pb.ListProductsResponse(products=map(convert.from_product, products), next_page_token=token)

    async def PlaceOrder(self, request: pb.PlaceOrderRequest, context: RpcContext) -> pb.PlaceOrderResponse:
        """Reserves and quotes an order. The trailing metadata have its key."""
        with _request(context, ORDER_SECONDS):
            key = key_of(_keys(context))
            order = await self._storefront.place_order(key, convert.to_lines(request), convert.to_currency(request))
        context.set_trailing_metadata((*trace_metadata(), (KEY, key)))
        return pb.PlaceOrderResponse(order=convert.from_order(order))

    async def GetOrder(self, request: pb.GetOrderRequest, context: RpcContext) -> pb.GetOrderResponse:
        """Reads an order."""
        with _request(context, ORDER_SECONDS):
            order = await self._storefront.order(request.order_id)
        return pb.GetOrderResponse(order=convert.from_order(order))

    async def CommitOrder(self, request: pb.CommitOrderRequest, context: RpcContext) -> pb.CommitOrderResponse:
        """Removes the units from the warehouse."""
        with _request(context, ORDER_SECONDS):
            order = await self._storefront.commit_order(request.order_id)
        return pb.CommitOrderResponse(order=convert.from_order(order))

    async def ReleaseOrder(self, request: pb.ReleaseOrderRequest, context: RpcContext) -> pb.ReleaseOrderResponse:
        """Makes the units available again."""
        with _request(context, ORDER_SECONDS):
            order = await self._storefront.release_order(request.order_id)
        return pb.ReleaseOrderResponse(order=convert.from_order(order))


@contextmanager
def _request(context: RpcContext, seconds: float) -> Iterator[None]:
    """Names the trace of a request, and opens its budget: `seconds`, or the client's deadline.

    Its errors say when a retry is worthwhile.
    """
    context.set_trailing_metadata(trace_metadata())
    try:
        with budget(seconds if context.time_remaining() is None else MAX_SECONDS):
            yield
    except ServiceError as error:
        error.retry_after = retry_delay(error)
        raise


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """The trace of the current span, as in the headers of REST; empty without a trace."""
    span = current_span_context()
    if not span.is_valid:
        return ()
    trace_id, span_id = format_trace_id(span.trace_id), format_span_id(span.span_id)
    return ("traceresponse", f"00-{trace_id}-{span_id}-{span.trace_flags:02x}"), ("x-trace-id", trace_id)


def _keys(context: RpcContext) -> list[str]:
    return [str(value) for name, value in context.invocation_metadata() or () if name == KEY]
