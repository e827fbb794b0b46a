"""The domain of prices and quotes: values, limits and errors. `price_book.py` calculates prices.

What a read makes by the hundred is a NamedTuple, which costs less than half of a frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from meshkit import validation
from meshkit.errors import InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from datetime import datetime


DOMAIN = "pricing.aiomesh"

MINOR_DIGITS = {
    "AUD": 2, "BHD": 3, "CAD": 2, "CHF": 2, "CZK": 2, "DKK": 2, "EUR": 2, "GBP": 2, "INR": 2,
    "JPY": 0, "KRW": 0, "KWD": 3, "NOK": 2, "NZD": 2, "PLN": 2, "SEK": 2, "TND": 3, "USD": 2,
}  # fmt: skip
"""Decimal digits of each currency's minor unit (ISO 4217)."""

MAX_QUANTITY = 1_000_000
"""The most units of one line."""

MAX_LINES = 100
"""The most lines of one request."""

MAX_QUOTES = 100
"""The most quotes of one page, and of one SettleQuotes request."""

MAX_LIST_PRICE = 1_000_000_000
"""The highest list price of one unit, in minor units of its currency."""

MAX_AMOUNT = 2**63 - 1
"""The most minor units of any amount: the limit of int64 columns and of the units of google.type.Money."""

# Errors travel in HTTP/2 trailers, whose size is limited, so they repeat only this much of an invalid request.
_SHOWN_CHARACTERS = 64


class InvalidRequest(validation.InvalidRequest, domain=DOMAIN):
    """Fields of the request are missing or out of range; `violations` lists the first 30."""


class UnknownCurrency(InvalidArgument, domain=DOMAIN):
    """There is no exchange rate for this currency."""

    def __init__(self, currency: str) -> None:
        shown = currency[:_SHOWN_CHARACTERS]
        super().__init__(f"no exchange rate for currency {shown!r}", currency=shown)


class UnknownSku(NotFound, domain=DOMAIN):
    """There is no price for this SKU."""

    def __init__(self, sku: str) -> None:
        super().__init__(f"there is no price for SKU {sku!r}", sku=sku)


class UnknownQuote(NotFound, domain=DOMAIN):
    """No quote has this id."""

    def __init__(self, quote_id: str) -> None:
        shown = quote_id[:_SHOWN_CHARACTERS]
        super().__init__(f"there is no quote {shown!r}", quote_id=shown)


class RequestIdReused(validation.RequestIdReused, domain=DOMAIN):
    """The request id was already used for a different request."""


class DatabaseUnavailable(Unavailable, domain=DOMAIN):
    """The database cannot serve; nothing was changed, unless the connection broke in the middle of COMMIT."""


class Money(NamedTuple):
    """An amount in whole minor units of its currency, such as 1250 for 12.50 EUR."""

    currency: str
    minor: int


class ListPrice(NamedTuple):
    """The price of one unit of a SKU before any discount; its category is a path such as `tea/herbal`."""

    sku: str
    category: str
    price: Money


class Line(NamedTuple):
    """Some units of one SKU to price."""

    sku: str
    quantity: int


class Price(NamedTuple):
    """The current price of some units of one SKU; `promotion` is the name of the promotion applied, or empty."""

    line: Line
    unit_price: Money
    total: Money
    list_price: Money
    promotion: str


@dataclass(frozen=True, slots=True)
class Order:
    """An order to quote: its lines, its currency, and the digest of the whole order that the id identifies.

    `attempt_id` identifies one of the attempts at quoting it; nobody can undo the attempt ''.
    """

    request_id: str
    lines: tuple[Line, ...]
    currency: str
    fingerprint: str
    attempt_id: str = ""


class State(StrEnum):
    """The state of a quote: attempts at an OPEN one may be undone, and a COMMITTED one is never deleted."""

    OPEN = "OPEN"
    CONFIRMED = "CONFIRMED"
    COMMITTED = "COMMITTED"


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """One line with frozen prices."""

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
    state: State = State.OPEN


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of the orders of some quotes. An id in several sets belongs to the first of them.

    Those in `committed` are kept for good. Those in `finished` are deleted if they were created before
    `create_time_before`, an aware datetime; those in `orphaned` only if no attempt has used them for a minute, either.
    """

    committed: frozenset[str]
    finished: frozenset[str]
    orphaned: frozenset[str]
    create_time_before: datetime


@dataclass(frozen=True, slots=True)
class PriceChange:
    """A new list price."""

    request_id: str
    sku: str
    price: Money


def check_currency(currency: str) -> str:
    """Returns the ISO 4217 code if its minor unit is known.

    Raises:
        UnknownCurrency: it is not such a code in upper case.
    """
    if currency not in MINOR_DIGITS:
        raise UnknownCurrency(currency)
    return currency
