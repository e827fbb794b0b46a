"""Converts the messages of the storefront API to domain values, and back. The rules are checked by the storefront."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from aiomesh.storefront.v1 import storefront_pb2 as pb
from api_edge.domain import Line
from api_edge.rules import DEFAULT_CURRENCY, DEFAULT_PAGE, DEFAULT_QUANTITY

if TYPE_CHECKING:
    from aiomesh.storefront.v1 import storefront_service_pb2 as service_pb
    from api_edge.domain import Amount, Degradation, Order, Price, PricedLine, Product, Stock

NANOS = 10**9
"""The nanos of one unit of google.type.Money."""


def to_line(request: service_pb.GetProductRequest) -> Line:
    """The product and the quantity to price."""
    return Line(request.sku, to_quantity(request))


def to_lines(request: service_pb.PlaceOrderRequest) -> list[Line]:
    """The lines of a new order."""
    return [Line(line.sku, line.quantity) for line in request.lines]


def to_quantity(request: service_pb.GetProductRequest | service_pb.ListProductsRequest) -> int:
    """The units to price."""
    return request.quantity if request.HasField("quantity") else DEFAULT_QUANTITY


def to_page_size(request: service_pb.ListProductsRequest) -> int:
    """The number of products of a page."""
    return request.page_size if request.HasField("page_size") else DEFAULT_PAGE


def to_currency(
    request: service_pb.GetProductRequest | service_pb.ListProductsRequest | service_pb.PlaceOrderRequest,
) -> str:
    """The currency of the prices."""
    return request.currency if request.HasField("currency") else DEFAULT_CURRENCY


def from_product(product: Product) -> pb.Product:
    """A product, with its price if there is one."""
    stock, price = product.stock, product.price
    return pb.Product(
        sku=stock.sku,
        title=stock.title,
        category=stock.category,
        stock=_from_stock(stock),
        price=_from_price(price) if price else None,
        problems=map(_from_degradation, product.problems),
    )


def from_order(order: Order) -> pb.Order:
    """An order as it is now."""
    reservation, quote = order.reservation, order.quote
    expire_time = Timestamp()
    expire_time.FromDatetime(reservation.expire_time)
    return pb.Order(
        order_id=reservation.id,
        state=pb.Order.State.Value(f"STATE_{reservation.state}"),
        currency=quote.currency,
        lines=map(_from_line, quote.lines),
        total=_from_amount(quote.total),
        expire_time=expire_time,
        fraction_digits=quote.total.digits,
    )


def _from_stock(stock: Stock) -> pb.Stock:
    return pb.Stock(on_hand=stock.on_hand, reserved=stock.reserved, available=stock.available, version=stock.version)


def _from_price(price: Price) -> pb.Price:
    return pb.Price(
        unit_price=_from_amount(price.unit_price),
        quantity=price.quantity,
        total=_from_amount(price.total),
        fraction_digits=price.total.digits,
    )


def _from_degradation(problem: Degradation) -> pb.Problem:
    return pb.Problem(service=problem.service, code=problem.code, reason=problem.reason)


def _from_line(line: PricedLine) -> pb.OrderLine:
    return pb.OrderLine(
        sku=line.sku,
        quantity=line.quantity,
        unit_price=_from_amount(line.unit_price),
        total=_from_amount(line.total),
    )


def _from_amount(amount: Amount) -> Money:
    units, nanos = divmod(amount.minor * NANOS // 10**amount.digits, NANOS)
    return Money(currency_code=amount.currency, units=units, nanos=nanos)
