"""The messages of the gRPC rivals: those of aiomesh.inventory.v1 and aiomesh.pricing.v1, from and to plain values."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from google.type.money_pb2 import Money

from aiomesh.inventory.v1 import inventory_pb2, inventory_service_pb2
from aiomesh.pricing.v1 import pricing_pb2, pricing_service_pb2
from pricing.domain import MINOR_DIGITS

if TYPE_CHECKING:
    from collections.abc import Mapping

NANOS = 1_000_000_000


def stock_response(found: Mapping[str, Any]) -> inventory_service_pb2.GetStockResponse:
    """The response of GetStock."""
    stock = inventory_pb2.Stock(**found, available=found["on_hand"] - found["reserved"])
    return inventory_service_pb2.GetStockResponse(stock=stock)


def price_response(sku: str, cost: Mapping[str, Any]) -> pricing_service_pb2.GetPriceResponse:
    """The response of GetPrice."""
    unit, total = (_money(cost[name], cost["currency"]) for name in ("unit_price", "total"))
    digits = MINOR_DIGITS[cost["currency"]]
    price = pricing_pb2.Price(sku=sku, quantity=cost["quantity"], unit_price=unit, total=total, fraction_digits=digits)
    return pricing_service_pb2.GetPriceResponse(price=price)


def stock_values(stock: inventory_pb2.Stock) -> dict[str, Any]:
    """The values of a stock."""
    return {name: getattr(stock, name) for name in ("sku", "title", "category", "on_hand", "reserved", "version")}


def price_values(price: pricing_pb2.Price) -> dict[str, Any]:
    """The values of a price."""
    return {
        "currency": price.unit_price.currency_code,
        "unit_price": _decimals(price.unit_price, price.fraction_digits),
        "quantity": price.quantity,
        "total": _decimals(price.total, price.fraction_digits),
    }


def _money(amount: str, currency: str) -> Money:
    units, _, fraction = amount.partition(".")
    return Money(currency_code=currency, units=int(units), nanos=int(f"{fraction:0<9}"))


def _decimals(money: Money, digits: int) -> str:
    amount = Decimal(money.units) + Decimal(money.nanos) / NANOS
    return str(amount.quantize(Decimal(1).scaleb(-digits)))
