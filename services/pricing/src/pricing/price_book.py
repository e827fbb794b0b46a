"""Calculates prices: the price book in force at one moment, and exact arithmetic on it.

One unit costs, in minor units of the requested currency,

    list price * (100 - break) % * (100 - promotion) % * rate of the currency / rate of the list price's currency

rounded once, half to even, and never below one minor unit, so no price is zero. The total is the unit price times the
quantity, and an order's total is the sum of its lines' totals, so the amounts shown always add up.

`break` comes from the most specific scope that has breaks (a SKU with breaks ignores those of its category): it is the
one with the highest `min_quantity` reached. `promotion` is the best one that applies; promotions are not added.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from meshkit.errors import FieldViolation
from pricing.domain import (
    MAX_AMOUNT,
    MINOR_DIGITS,
    InvalidRequest,
    Money,
    Price,
    Quote,
    QuoteLine,
    UnknownCurrency,
    UnknownSku,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from pricing.domain import Line, ListPrice, Order

BASE_CURRENCY = "EUR"
"""The currency that rates are quoted against: a rate is the amount of its currency that one euro buys."""

Terms: TypeAlias = tuple[int, int, str]
"""What a list price is multiplied with and divided by, both in minor units, and the name of the promotion in it."""

_NO_DISCOUNT = Decimal(0)


def scopes_of(sku: str, category: str) -> tuple[str, ...]:
    """The scopes of the breaks and promotions that apply to a SKU, most specific first.

    For `HRB-0001` in `tea/herbal`: `sku:HRB-0001`, `category:tea/herbal`, `category:tea`, `all`.
    """
    return (f"sku:{sku}", *_scopes_of_category(category))


@lru_cache(maxsize=1024)
def _scopes_of_category(category: str) -> tuple[str, ...]:
    steps = category.split("/") if category else []
    paths = ["/".join(steps[:length]) for length in range(len(steps), 0, -1)]
    return (*(f"category:{path}" for path in paths), "all")


class QuantityBreak(NamedTuple):
    """A discount of `percent_off` (above 0, below 100) on SKUs in `scope`, from `min_quantity` units on."""

    min_quantity: int
    percent_off: Decimal
    scope: str


class Promotion(NamedTuple):
    """A promotion in force: a discount of `percent_off` (above 0, below 100) on SKUs in `scope`.

    The best of some is the greatest: of two with the same percentage, the one whose name comes last.
    """

    percent_off: Decimal
    name: str
    scope: str


class Discounts:
    """Breaks and promotions, found by scope.

    Args:
        breaks: in any order.
        promotions: in any order.

    Attributes:
        breaks: those of each scope, those of most units first.
        promotions: the best of each scope.
    """

    def __init__(self, breaks: Iterable[QuantityBreak], promotions: Iterable[Promotion]) -> None:
        self.breaks = _by_scope(sorted(breaks, reverse=True))
        self.promotions = {scope: max(entries) for scope, entries in _by_scope(promotions).items()}

    def quantity_break(self, scopes: Iterable[str], quantity: int) -> Decimal:
        """The percentage that the first of the scopes with breaks has for a quantity; 0 if none has."""
        for scope in scopes:
            if breaks := self.breaks.get(scope):
                return next((entry.percent_off for entry in breaks if entry.min_quantity <= quantity), _NO_DISCOUNT)
        return _NO_DISCOUNT

    def promotion(self, scopes: Iterable[str]) -> Promotion | None:
        """The best promotion of the scopes."""
        best = self.promotions
        return max((best[scope] for scope in scopes if scope in best), default=None)


class PriceBook:
    """Everything that determines the prices of some SKUs at one moment.

    Args:
        moment: an aware datetime.
        list_prices: those of the requested SKUs that have one.
        discounts: all that may apply to them.
        rates: how much of each currency one euro buys.
    """

    def __init__(
        self,
        moment: datetime,
        list_prices: Mapping[str, ListPrice],
        discounts: Discounts,
        rates: Mapping[str, Decimal],
    ) -> None:
        self.moment = moment
        self.list_prices = list_prices
        self.discounts = discounts
        self.rates = rates
        self._known_terms: dict[tuple[tuple[str, ...], int, str, str], Terms] = {}

    def price(self, line: Line, currency: str, *, field: str = "quantity") -> Price:
        """The price of one line; `field` is the path of its quantity in the request.

        Raises:
            UnknownCurrency: there is no rate for the currency, or the number of its minor digits is not known.
            UnknownSku: the SKU has no price.
            InvalidRequest: the total is above MAX_AMOUNT.
        """
        self.rate(currency)
        item = self._list_price(line.sku)
        numerator, denominator, promotion = self._terms(item, line.quantity, currency)
        unit_price = Money(currency, max(1, _half_even(item.price.minor * numerator, denominator)))
        total = _amount(currency, unit_price.minor * line.quantity, field)
        return Price(line, unit_price, total, item.price, promotion)

    def prices(self, lines: Sequence[Line], currency: str) -> tuple[list[Price], list[str]]:
        """The prices of the lines, in their order, and the SKUs without a price, each once.

        Raises:
            UnknownCurrency: there is no rate for the currency, or the number of its minor digits is not known.
            InvalidRequest: a total is above MAX_AMOUNT.
        """
        self.rate(currency)
        priced = [(index, line) for index, line in enumerate(lines) if line.sku in self.list_prices]
        prices = [self.price(line, currency, field=f"lines[{index}].quantity") for index, line in priced]
        return prices, list(dict.fromkeys(line.sku for line in lines if line.sku not in self.list_prices))

    def quote(self, order: Order) -> Quote:
        """A quote with the current prices of an order's lines.

        Raises:
            UnknownCurrency: there is no rate for the currency, or the number of its minor digits is not known.
            UnknownSku: a SKU has no price.
            InvalidRequest: a total is above MAX_AMOUNT.
        """
        prices, missing = self.prices(order.lines, order.currency)
        if missing:
            raise UnknownSku(missing[0])
        return Quote(
            quote_id=order.request_id,
            fingerprint=order.fingerprint,
            lines=tuple(QuoteLine(price.line, price.unit_price, price.total) for price in prices),
            total=_amount(order.currency, sum(price.total.minor for price in prices), "lines"),
            create_time=self.moment,
        )

    def rate(self, currency: str) -> Decimal:
        """How much of the currency one euro buys.

        Raises:
            UnknownCurrency: there is no rate for the currency, or the number of its minor digits is not known.
        """
        if currency not in self.rates or currency not in MINOR_DIGITS:
            raise UnknownCurrency(currency)
        return self.rates[currency]

    def _list_price(self, sku: str) -> ListPrice:
        if sku not in self.list_prices:
            raise UnknownSku(sku)
        return self.list_prices[sku]

    def _terms(self, item: ListPrice, quantity: int, currency: str) -> Terms:
        """The terms of a SKU, which are those of its category unless a break or a promotion is for this SKU."""
        scopes = scopes_of(item.sku, item.category)
        if scopes[0] not in self.discounts.breaks and scopes[0] not in self.discounts.promotions:
            scopes = scopes[1:]
        key = (scopes, quantity, item.price.currency, currency)
        terms = self._known_terms.get(key)
        if terms is None:
            terms = self._known_terms[key] = self._calculate_terms(*key)
        return terms

    def _calculate_terms(self, scopes: tuple[str, ...], quantity: int, listed: str, currency: str) -> Terms:
        promotion = self.discounts.promotion(scopes)
        quantity_break = self.discounts.quantity_break(scopes, quantity)
        percents_off = quantity_break, promotion.percent_off if promotion else _NO_DISCOUNT
        rate, over = self.rate(currency), self.rate(listed)
        ratio = _ratio(percents_off, rate, over, MINOR_DIGITS[currency] - MINOR_DIGITS[listed])
        return *ratio, promotion.name if promotion else ""


Entry = TypeVar("Entry", QuantityBreak, Promotion)


def _by_scope(entries: Iterable[Entry]) -> Mapping[str, Sequence[Entry]]:
    found = defaultdict(list)
    for entry in entries:
        found[entry.scope].append(entry)
    return found


@lru_cache(maxsize=1024)
def _ratio(percents_off: tuple[Decimal, ...], rate: Decimal, over: Decimal, digits: int) -> tuple[int, int]:
    """What is left of a price in minor units at two rates, where one currency has so many `digits` more."""
    ratio = Fraction(rate) / Fraction(over) * Fraction(10) ** digits
    for percent_off in percents_off:
        ratio *= (100 - Fraction(percent_off)) / 100
    return ratio.as_integer_ratio()


def _half_even(numerator: int, denominator: int) -> int:
    """Rounds a positive ratio, which a Decimal need not hold exactly: a third has no digits that end."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


def _amount(currency: str, minor: int, field: str) -> Money:
    if minor > MAX_AMOUNT:
        raise InvalidRequest([FieldViolation(field, f"the total in {currency} is above {MAX_AMOUNT} minor units")])
    return Money(currency, minor)
