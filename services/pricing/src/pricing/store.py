"""Prices and quotes in a SQL database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from meshkit.database.columns import insert_once
from pricing.book_query import read_book
from pricing.domain import Line, Money, Quote, QuoteLine, RequestIdReused, UnknownQuote
from pricing.tables import list_prices, price_changes, quote_lines, quotes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from meshkit.database.database import Database
    from pricing.domain import Order, PriceChange
    from pricing.price_book import PriceBook


class PriceStore:
    """The store, on SQLite or PostgreSQL. It caches nothing, so several processes may share one database.

    Every method may also raise DatabaseUnavailable.

    Args:
        database: the caller closes it.
        clock: returns the current time, an aware datetime.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def price_book(self, skus: Collection[str], currency: str) -> PriceBook:
        """Everything that currently determines the prices of some SKUs in one currency, read at one moment."""
        async with self._database.read() as connection:
            return await read_book(connection, skus, currency, self._clock())

    async def create_quote(self, order: Order) -> Quote:
        """Freezes an order's prices; a repeat of the request returns the first quote.

        A repeat takes no write lock; of concurrent attempts, the first to insert wins.

        Raises:
            RequestIdReused: the id was used with another fingerprint.
            UnknownCurrency, UnknownSku, InvalidRequest: as `PriceBook.quote`.
        """
        quote = await self._find_quote(order.request_id) or await self._make_quote(order)
        if quote.fingerprint != order.fingerprint:
            raise RequestIdReused(order.request_id)
        return quote

    async def get_quote(self, quote_id: str) -> Quote:
        """Reads a quote.

        Raises:
            UnknownQuote: no quote has this id.
        """
        quote = await self._find_quote(quote_id)
        if quote is None:
            raise UnknownQuote(quote_id)
        return quote

    async def set_price(self, change: PriceChange) -> Money:
        """Changes a list price, once, and returns the current list price.

        Raises:
            RequestIdReused: the id was used for a different change.
            UnknownCurrency: there is no rate for the currency.
        """
        book = await self.price_book([], change.price.currency)
        book.rate(change.price.currency)
        return await self._database.write(partial(_change_price, change, book.moment))

    async def _find_quote(self, quote_id: str) -> Quote | None:
        async with self._database.read() as connection:
            rows = (await connection.execute(_QUOTE.where(quotes.c.quote_id == quote_id))).all()
        return _to_quote(rows) if rows else None

    async def _make_quote(self, order: Order) -> Quote:
        book = await self.price_book([line.sku for line in order.lines], order.currency)
        quote = book.quote(order)
        inserted = await self._database.write(partial(_insert_quote, quote))
        return quote if inserted else await self.get_quote(order.request_id)


_QUOTE = (
    select(
        quotes.c.quote_id,
        quotes.c.fingerprint,
        quotes.c.currency,
        quotes.c.total_minor,
        quotes.c.create_time,
        quote_lines.c.sku,
        quote_lines.c.quantity,
        quote_lines.c.unit_minor,
        quote_lines.c.total_minor.label("line_minor"),
    )
    .join_from(quotes, quote_lines)
    .order_by(quote_lines.c.position)
)


def _to_quote(rows: Sequence[Row[*tuple[Any, ...]]]) -> Quote:
    head = rows[0]
    return Quote(
        quote_id=head.quote_id,
        fingerprint=head.fingerprint,
        lines=tuple(
            QuoteLine(
                Line(row.sku, row.quantity), Money(head.currency, row.unit_minor), Money(head.currency, row.line_minor)
            )
            for row in rows
        ),
        total=Money(head.currency, head.total_minor),
        create_time=head.create_time,
    )


async def _insert_quote(quote: Quote, connection: AsyncConnection) -> bool:
    """Inserts the quote unless its id exists; returns whether it did."""
    new = await insert_once(
        connection,
        quotes,
        quote_id=quote.quote_id,
        fingerprint=quote.fingerprint,
        currency=quote.total.currency,
        total_minor=quote.total.minor,
        create_time=quote.create_time,
    )
    if new:
        await connection.execute(quote_lines.insert(), _line_rows(quote))
    return new


def _line_rows(quote: Quote) -> list[dict[str, str | int]]:
    return [
        {
            "quote_id": quote.quote_id,
            "position": position,
            "sku": entry.line.sku,
            "quantity": entry.line.quantity,
            "unit_minor": entry.unit_price.minor,
            "total_minor": entry.total.minor,
        }
        for position, entry in enumerate(quote.lines)
    ]


async def _change_price(change: PriceChange, moment: datetime, connection: AsyncConnection) -> Money:
    """Applies the change if its id is new, and returns the current list price."""
    price = {"currency": change.price.currency, "minor": change.price.minor}
    row = {"request_id": change.request_id, "sku": change.sku, "create_time": moment, **price}
    if not await insert_once(connection, price_changes, **row):
        await _require_same(change, connection)
    elif not await insert_once(connection, list_prices, sku=change.sku, category="", **price):
        await connection.execute(list_prices.update().where(list_prices.c.sku == change.sku).values(price))
    now = select(list_prices.c.currency, list_prices.c.minor).where(list_prices.c.sku == change.sku)
    return Money(*(await connection.execute(now)).one())


async def _require_same(change: PriceChange, connection: AsyncConnection) -> None:
    columns = price_changes.c
    statement = select(columns.sku, columns.currency, columns.minor).where(columns.request_id == change.request_id)
    first = (await connection.execute(statement)).one()
    if tuple(first) != (change.sku, change.price.currency, change.price.minor):
        raise RequestIdReused(change.request_id)
