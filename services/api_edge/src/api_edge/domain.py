"""The storefront's types: products, orders, and why a part is missing. Standard library only.

What a read makes by the hundred is a NamedTuple, which costs less than half of a frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from meshkit import validation
from meshkit.errors import InvalidArgument, NotFound, ServiceError, mapping_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

DOMAIN = "api_edge.aiomesh"

_SHOWN_CHARACTERS = 64
"""How much of a wrong request an error repeats: characters of a value, and fields."""


class Stock(NamedTuple):
    """Units of one SKU: `available = on_hand - reserved`."""

    sku: str
    title: str
    category: str
    on_hand: int
    reserved: int
    available: int
    version: int


class Amount(NamedTuple):
    """An amount in minor units of a currency (ISO 4217), such as cents, and how many decimals they are."""

    currency: str
    minor: int
    digits: int

    def __str__(self) -> str:
        """The amount in the currency's own digits, such as `1200` for JPY and `12.50` for EUR."""
        text, digits = str(self.minor).zfill(self.digits + 1), self.digits
        return f"{text[:-digits]}.{text[-digits:]}" if digits else text


class Price(NamedTuple):
    """What `quantity` units of a SKU cost now."""

    quantity: int
    unit_price: Amount
    total: Amount


class Degradation(NamedTuple):
    """Why a part of a product is missing: which service failed, its gRPC status code and its reason."""

    service: str
    code: str
    reason: str


class Product(NamedTuple):
    """A product as the storefront shows it: always with stock, and with a price if there is one."""

    stock: Stock
    price: Price | None
    problems: tuple[Degradation, ...] = ()


class OrderState(StrEnum):
    """The state of an order, which is that of its reservation."""

    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


class Line(NamedTuple):
    """Some units of one SKU."""

    sku: str
    quantity: int


@dataclass(frozen=True)
class Reservation:
    """The half of an order that inventory keeps."""

    id: str
    state: OrderState
    expire_time: datetime
    fingerprint: str


class PricedLine(NamedTuple):
    """One line of an order at the price that was frozen for it."""

    sku: str
    quantity: int
    unit_price: Amount
    total: Amount


@dataclass(frozen=True)
class Quote:
    """The half of an order that pricing keeps."""

    currency: str
    lines: tuple[PricedLine, ...]
    total: Amount
    fingerprint: str


@dataclass(frozen=True)
class Order:
    """A reservation and a quote of the same id and the same fingerprint."""

    reservation: Reservation
    quote: Quote


class InvalidRequest(validation.InvalidRequest, domain=DOMAIN):
    """Fields of the request are missing or out of range; `violations` lists the first 30."""


class UnknownSku(NotFound, domain=DOMAIN):
    """No product has one of these SKUs."""

    def __init__(self, skus: Sequence[str]) -> None:
        super().__init__(f"there is no product {', '.join(skus)}", sku=",".join(skus))


class UnstockedSku(NotFound, domain="inventory.aiomesh"):
    """There is no stock: inventory's own UNKNOWN_SKU, for one SKU of a batch."""

    def __init__(self, sku: str) -> None:
        super().__init__(f"there is no SKU {sku!r}", sku=sku)
        self.reason = "UNKNOWN_SKU"


class UnpricedSku(NotFound, domain="pricing.aiomesh"):
    """The product exists but has no price: pricing's own UNKNOWN_SKU, for one SKU of a batch."""

    def __init__(self, sku: str) -> None:
        super().__init__(f"there is no price for SKU {sku!r}", sku=sku)
        self.reason = "UNKNOWN_SKU"


class UnknownOrder(NotFound, domain=DOMAIN):
    """No order has this id."""

    def __init__(self, order_id: str) -> None:
        shown = order_id[:_SHOWN_CHARACTERS]
        super().__init__(f"there is no order {shown}", order_id=shown)


class UnknownCurrency(InvalidArgument, domain=DOMAIN):
    """The currency does not have the form of an ISO 4217 code."""

    def __init__(self, currency: str) -> None:
        super().__init__(
            f"{currency[:_SHOWN_CHARACTERS]!r} is not a currency: three capital letters, such as EUR (ISO 4217)"
        )


class InvalidIdempotencyKey(InvalidArgument, domain=DOMAIN):
    """The Idempotency-Key header is empty, too long, or not printable ASCII."""

    def __init__(self) -> None:
        super().__init__("Idempotency-Key must be 1 to 255 printable ASCII characters")


def degradation(service: str, error: ServiceError) -> Degradation:
    """The problem of a product that an error left without a price."""
    return Degradation(service, mapping_of(error).code, error.reason)
