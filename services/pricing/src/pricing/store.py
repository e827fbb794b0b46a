"""Prices and quotes in a SQL database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select

from meshkit.database.columns import insert_once
from pricing import quoting
from pricing.book_query import BOOK, book_parameters, to_book
from pricing.domain import Money, RequestIdReused, UnknownQuote
from pricing.tables import list_prices, price_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from opentelemetry.trace import Tracer
    from sqlalchemy import Connection

    from meshkit.database.database import Database
    from pricing.domain import Order, PriceChange, Quote, Settlement
    from pricing.price_book import PriceBook


class PriceStore:
    """The store, on SQLite or PostgreSQL. It caches nothing, so several processes may share one database.

    Every method may also raise DatabaseUnavailable.

    Args:
        database: the caller closes it.
        clock: returns the current time, an aware datetime.
        tracer: creates a span for each settlement that deletes quotes.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], tracer: Tracer) -> None:
        self._database = database
        self._clock = clock
        self._tracer = tracer

    async def price_book(self, skus: Collection[str], currency: str) -> PriceBook:
        """Everything that currently determines the prices of some SKUs in one currency, read at one moment."""
        moment = self._clock()
        return to_book(await self._database.fetch(BOOK, book_parameters(skus, currency, moment)), moment)

    async def create_quote(self, order: Order) -> Quote:
        """Freezes an order's prices; a repeat of the request returns the first quote, and is one more attempt at it.

        Raises:
            RequestIdReused: the id was used with another fingerprint.
            UnknownCurrency, UnknownSku, InvalidRequest: as `PriceBook.quote`.
        """
        return await self._database.write(partial(quoting.create, order, self._clock))

    async def undo_create_quote(self, quote_id: str, attempt_id: str) -> bool:
        """Removes one attempt, and with the last one the quote; returns whether it removed the quote."""
        return await self._database.write(partial(quoting.undo, quote_id, attempt_id, self._clock))

    async def confirm_quote(self, quote_id: str) -> Quote:
        """Makes an OPEN quote CONFIRMED, so that no undo deletes it.

        Raises:
            UnknownQuote: no quote has this id.
        """
        return await self._database.write(partial(quoting.confirm, quote_id, self._clock))

    async def get_quote(self, quote_id: str) -> Quote:
        """Reads a quote.

        Raises:
            UnknownQuote: no quote has this id.
        """
        rows = await self._database.fetch(quoting.FIND, {"id": quote_id})
        if not rows:
            raise UnknownQuote(quote_id)
        return quoting.to_quote(rows)

    async def unsettled_quotes(self, before: datetime, after: str, size: int) -> tuple[list[str], str]:
        """The next ids after one, by id, of quotes that are not COMMITTED and were created before a time.

        Returns:
            the ids, and the one after which the next page starts, empty on the last page.
        """
        rows = await self._database.fetch(quoting.UNSETTLED_PAGE, {"before": before, "after": after, "size": size + 1})
        found = [id_ for (id_,) in rows]
        ids = found[:size]
        return ids, ids[-1] if len(found) > size else ""

    async def settle_quotes(self, settlement: Settlement) -> int:
        """Makes the quotes of committed orders COMMITTED, deletes the others, and returns how many it deleted.

        Takes no lock when there is nothing to change.
        """
        now = self._clock()
        if not await self._database.fetch(quoting.TO_SETTLE, quoting.to_settle(settlement, now)):
            return 0
        return await self._database.write(partial(quoting.settle, settlement, now, self._tracer))

    async def set_price(self, change: PriceChange) -> Money:
        """Changes a list price, once, and returns the current list price.

        Raises:
            RequestIdReused: the id was used for a different change.
            UnknownCurrency: there is no rate for the currency.
        """
        book = await self.price_book([], change.price.currency)
        book.rate(change.price.currency)
        return await self._database.write(partial(_change_price, change, book.moment))


def _change_price(change: PriceChange, moment: datetime, connection: Connection) -> Money:
    """Applies the change if its id is new, and returns the current list price."""
    price = {"currency": change.price.currency, "minor": change.price.minor}
    row = {"request_id": change.request_id, "sku": change.sku, "create_time": moment, **price}
    if not insert_once(connection, price_changes, **row):
        _require_same(change, connection)
    elif not insert_once(connection, list_prices, sku=change.sku, category="", **price):
        connection.execute(list_prices.update().where(list_prices.c.sku == change.sku).values(price))
    now = select(list_prices.c.currency, list_prices.c.minor).where(list_prices.c.sku == change.sku)
    return Money(*connection.execute(now).one())


def _require_same(change: PriceChange, connection: Connection) -> None:
    columns = price_changes.c
    statement = select(columns.sku, columns.currency, columns.minor).where(columns.request_id == change.request_id)
    first = connection.execute(statement).one()
    if tuple(first) != (change.sku, change.price.currency, change.price.minor):
        raise RequestIdReused(change.request_id)
