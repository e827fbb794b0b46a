"""Reads a price book in one statement, because reads have no transaction and a book must show one moment.

The statement is a UNION ALL. The column `kind` is the kind of a row; the other columns hold

    kind        key       detail    value        number
    list price  sku       category  currency     minor units
    break       scope               percent off  min_quantity
    promotion   scope     name      percent off
    rate        currency            per euro
"""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, literal_column, or_, select, union_all

from meshkit.database.columns import UtcMicros
from pricing.domain import ListPrice, Money
from pricing.price_book import BASE_CURRENCY, Discounts, PriceBook, Promotion, QuantityBreak
from pricing.tables import list_prices, promotions, quantity_breaks, rates

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy import ColumnElement, CompoundSelect, Select

    Text = ColumnElement[str]
    Number = ColumnElement[int]
    Branch = Select[str, str, str, str, int]

_EMPTY: Text = literal_column("''")
_ZERO: Number = literal_column("0")


def book_parameters(skus: Collection[str], currency: str, moment: datetime) -> dict[str, object]:
    """The parameters of BOOK for some SKUs at `moment`, with rates for `currency` and those of the list prices."""
    return {
        "skus": list(skus),
        "scopes": ["all", *(f"sku:{sku}" for sku in skus)],
        "currency": currency,
        "now": moment,
        "today": moment.astimezone(UTC).date().isoformat(),
    }


def to_book(rows: Iterable[tuple[str, str, str, str, int]], moment: datetime) -> PriceBook:
    """The price book at `moment` of the rows of BOOK."""
    prices: dict[str, ListPrice] = {}
    rates_ = {BASE_CURRENCY: Decimal(1)}
    discounts: list[tuple[str, str, str, str, int]] = []
    for kind, key, detail, value, number in rows:
        match kind:
            case "list price":
                prices[key] = ListPrice(key, detail, Money(value, number))
            case "rate":
                rates_[key] = Decimal(value)
            case _:
                discounts.append((kind, key, detail, value, number))
    return PriceBook(moment, prices, _discounts(tuple(discounts)), rates_)


@lru_cache(maxsize=16)
def _discounts(rows: tuple[tuple[str, str, str, str, int], ...]) -> Discounts:
    """The discounts of rows of breaks and promotions, which are the same for most books."""
    breaks = (QuantityBreak(number, Decimal(value), key) for kind, key, _, value, number in rows if kind == "break")
    promotions = (Promotion(Decimal(value), name, key) for kind, key, name, value, _ in rows if kind == "promotion")
    return Discounts(breaks, promotions)


def _branch(kind: str, key: Text, detail: Text = _EMPTY, value: Text = _EMPTY, number: Number = _ZERO) -> Branch:
    return select(
        literal_column(f"'{kind}'").label("kind"),
        key.label("key"),
        detail.label("detail"),
        value.label("value"),
        number.label("number"),
    )


def _in_scope(scope: Text) -> ColumnElement[bool]:
    """Includes all categories, because only the list price, read in the same statement, has the SKU's category."""
    return or_(scope.in_(bindparam("scopes", expanding=True)), scope.startswith("category:"))


def _list_prices() -> Branch:
    prices = list_prices.c
    branch = _branch("list price", prices.sku, prices.category, prices.currency, prices.minor)
    return branch.where(prices.sku.in_(bindparam("skus", expanding=True)))


def _breaks() -> Branch:
    breaks = quantity_breaks.c
    branch = _branch("break", breaks.scope, value=breaks.percent_off, number=breaks.min_quantity)
    return branch.where(_in_scope(breaks.scope))


def _promotions() -> Branch:
    """The promotions in force: from `valid_from` on, until just before `valid_until`."""
    entries, now = promotions.c, bindparam("now", type_=UtcMicros)
    branch = _branch("promotion", entries.scope, entries.name, entries.percent_off)
    return branch.where(_in_scope(entries.scope), entries.valid_from <= now, now < entries.valid_until)


def _rates() -> Branch:
    """The newest rate of each currency that is dated today or earlier."""
    newest = rates.alias("newest")
    day = (
        select(func.max(newest.c.valid_from))
        .where(newest.c.currency == rates.c.currency, newest.c.valid_from <= bindparam("today"))
        .scalar_subquery()
    )
    listed_in = select(list_prices.c.currency).where(list_prices.c.sku.in_(bindparam("skus", expanding=True)))
    return _branch("rate", rates.c.currency, value=rates.c.per_euro).where(
        or_(rates.c.currency == bindparam("currency"), rates.c.currency.in_(listed_in)), rates.c.valid_from == day
    )


BOOK: CompoundSelect[str, str, str, str, int] = union_all(_list_prices(), _breaks(), _promotions(), _rates())
