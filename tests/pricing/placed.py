"""Orders of tests, what becomes of them, and the rows that they leave."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from pricing.domain import Line, Order, Settlement, State
from pricing.tables import metadata, quotes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshkit.database.database import Database
    from pricing.store import PriceStore

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TABLES = ("quotes", "quote_lines", "quote_attempts")


def new_id() -> str:
    return str(uuid.uuid4())


def order_of(*lines: tuple[str, int], currency: str = "EUR") -> Order:
    of = lines or (("TEA-0001", 3), ("CUP-0001", 1))
    return Order(new_id(), tuple(Line(*line) for line in of), currency, "digest", new_id())


def another_attempt(order: Order) -> Order:
    return replace(order, attempt_id=new_id())


def settlement_of(
    *,
    committed: Iterable[str] = (),
    finished: Iterable[str] = (),
    orphaned: Iterable[str] = (),
    create_time_before: datetime = NOW,
) -> Settlement:
    return Settlement(frozenset(committed), frozenset(finished), frozenset(orphaned), create_time_before)


async def undo(store: PriceStore, order: Order) -> bool:
    return await store.undo_create_quote(order.request_id, order.attempt_id)


async def rows(database: Database) -> list[int]:
    """How many rows there are in the three tables of quotes."""
    async with database.read() as connection:
        counts = [await connection.scalar(select(func.count()).select_from(metadata.tables[name])) for name in TABLES]
    return [count or 0 for count in counts]


async def last_attempt_time(database: Database, order: Order) -> datetime:
    async with database.read() as connection:
        query = select(quotes.c.last_attempt_time).where(quotes.c.quote_id == order.request_id)
        moment: datetime = (await connection.execute(query)).scalar_one()
    return moment


async def reach(state: State, store: PriceStore, order: Order) -> None:
    await store.create_quote(order)
    if state is State.CONFIRMED:
        await store.confirm_quote(order.request_id)
    if state is State.COMMITTED:
        await store.settle_quotes(settlement_of(committed=[order.request_id]))
