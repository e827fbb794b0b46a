"""What prices and quotes are made of: values, limits and errors. How a price is computed: `price_book.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit import validation
from meshkit.errors import InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from datetime import datetime


DOMAIN = "pricing.aiomesh"

MINOR_DIGITS = {
    "AUD": 2, "BHD": 3, "CAD": 2, "CHF": 2, "CZK": 2, "DKK": 2, "EUR": 2, "GBP": 2, "INR": 2,
    "JPY": 0, "KRW": 0, "KWD": 3, "NOK": 2, "NZD": 2, "PLN": 2, "SEK": 2, "TND": 3, "USD": 2,
}  # fmt: skip
"""Digits of each currency's minor unit, as ISO 4217 gives them."""

MAX_QUANTITY = 1_000_000
"""Units of one line, at most."""

MAX_LINES = 100
"""Lines of one request, at most."""

MAX_LIST_PRICE = 1_000_000_000
"""List price of one unit, at most, in minor units of its currency."""

MAX_AMOUNT = 2**63 - 1
"""Minor units of any amount, at most: what int64 columns and the units of google.type.Money hold."""

# Errors travel in HTTP/2 trailers, whose size is limited: how much of a wrong request they repeat.
_SHOWN_CHARACTERS = 64


class InvalidRequest(validation.InvalidRequest, domain=DOMAIN):
    """Fields of the request are missing or out of range; `violations` names them, the first 30."""


class UnknownCurrency(InvalidArgument, domain=DOMAIN):
    """There is no exchange rate for that currency."""

    def __init__(self, currency: str) -> None:
        shown = currency[:_SHOWN_CHARACTERS]
        super().__init__(f"no exchange rate for currency {shown!r}", currency=shown)


class UnknownSku(NotFound, domain=DOMAIN):
    """There is no price for that SKU."""

    def __init__(self, sku: str) -> None:
        super().__init__(f"no price for sku {sku!r}", sku=sku)


class UnknownQuote(NotFound, domain=DOMAIN):
    """There is no quote of that id."""

    def __init__(self, quote_id: str) -> None:
        shown = quote_id[:_SHOWN_CHARACTERS]
        super().__init__(f"no quote {shown!r}", quote_id=shown)


class RequestIdReused(validation.RequestIdReused, domain=DOMAIN):
    """The request id was used before, for a request with another content."""


class DatabaseUnavailable(Unavailable, domain=DOMAIN):
    """The database cannot serve; nothing was changed, unless the connection broke in the middle of COMMIT."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in whole minor units of its currency, such as 1250 for 12.50 EUR."""

    currency: str
    minor: int


@dataclass(frozen=True, slots=True)
class ListPrice:
    """What one unit of a SKU costs before anything is taken off; its category is a path such as `tea/herbal`."""

    sku: str
    category: str
    price: Money


@dataclass(frozen=True, slots=True)
class Line:
    """Some units of one SKU to price."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Price:
    """What some units of one SKU cost now; `promotion` names the one applied, empty if none."""

    line: Line
    unit_price: Money
    total: Money
    list_price: Money
    promotion: str


@dataclass(frozen=True, slots=True)
class Order:
    """What CreateQuote asks for: the lines, one currency, and the digest of all that the id stands for."""

    request_id: str
    lines: tuple[Line, ...]
    currency: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """One frozen line."""

    line: Line
    unit_price: Money
    total: Money


@dataclass(frozen=True, slots=True)
class Quote:
    """Prices frozen at `create_time`, an aware datetime."""

    quote_id: str
    fingerprint: str
    lines: tuple[QuoteLine, ...]
    total: Money
    create_time: datetime


@dataclass(frozen=True, slots=True)
class PriceChange:
    """What SetPrice asks for."""

    request_id: str
    sku: str
    price: Money


def check_currency(currency: str) -> str:
    """Gives back the ISO 4217 code of a currency that we know the minor unit of.

    Raises:
        UnknownCurrency: it is no such code, also when in lower case.
    """
    if currency not in MINOR_DIGITS:
        raise UnknownCurrency(currency)
    return currency
