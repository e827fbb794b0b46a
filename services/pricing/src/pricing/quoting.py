"""The transactions that create, confirm and delete quotes. Each runs inside one `Database.write`.

All lock a quote before they change its lines and attempts, and those that lock several skip what others have locked, so
on PostgreSQL no two transactions deadlock. (SQLite runs one write transaction at a time.)
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from sqlalchemy import and_, bindparam, delete, or_, select, update

from meshkit.database.columns import insert_once
from pricing.book_query import read_book
from pricing.domain import Line, Money, Order, Quote, QuoteLine, RequestIdReused, State, UnknownQuote
from pricing.tables import UNSETTLED, quote_attempts, quote_lines, quotes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from opentelemetry.trace import Tracer
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from pricing.domain import Settlement

    Clock = Callable[[], datetime]

IN_USE = timedelta(minutes=1)
"""How long after its last attempt a quote without a reservation may still get one: no request takes longer."""

_FIND = (
    select(
        quotes,
        quote_lines.c.sku,
        quote_lines.c.quantity,
        quote_lines.c.unit_minor,
        quote_lines.c.total_minor.label("line_minor"),
    )
    .join_from(quotes, quote_lines)
    .where(quotes.c.quote_id == bindparam("id"))
    .order_by(quote_lines.c.position)
)
_FIND_AND_LOCK = _FIND.with_for_update(of=quotes)
_LOCK = select(quotes.c.state).where(quotes.c.quote_id == bindparam("id")).with_for_update()


async def create(order: Order, clock: Clock, connection: AsyncConnection) -> Quote:
    """Creates the quote, or adds this attempt to the existing one. See PriceStore.create_quote."""
    while not await _claim_id(order, now := clock(), connection):
        existing = await find(connection, order.request_id, lock=True)
        if existing:  # otherwise it was just deleted: claim the id again
            await _join(order, existing, clock(), connection)
            return existing
    book = await read_book(connection, [line.sku for line in order.lines], order.currency, now)
    quote = book.quote(order)
    await _fill(quote, connection)
    await _add_attempt(order, connection)
    return quote


async def undo(quote_id: str, attempt_id: str, clock: Clock, connection: AsyncConnection) -> bool:
    """Removes one attempt, and with the last attempt the quote, which no caller has received."""
    state = await connection.scalar(_LOCK, {"id": quote_id})
    if state is None:
        await _wait_for_concurrent_claim(quote_id, clock(), connection)
        state = await connection.scalar(_LOCK, {"id": quote_id})
    if state != State.OPEN:
        return False
    attempts = quote_attempts.c
    this_attempt = (attempts.quote_id == quote_id, attempts.attempt_id == attempt_id)
    removed = await connection.execute(delete(quote_attempts).where(*this_attempt))
    if removed.rowcount == 0 or await _has_attempts(quote_id, connection):
        return False
    await _delete([quote_id], connection)
    return True


async def confirm(quote_id: str, clock: Clock, connection: AsyncConnection) -> Quote:
    """Makes an OPEN quote CONFIRMED. See PriceStore.confirm_quote."""
    quote = await find(connection, quote_id, lock=True)
    if quote is None:
        raise UnknownQuote(quote_id)
    if quote.state is not State.OPEN:
        return quote
    await _finish([quote_id], connection, state=State.CONFIRMED, last_attempt_time=clock())
    return replace(quote, state=State.CONFIRMED)


async def settle(settlement: Settlement, now: datetime, tracer: Tracer, connection: AsyncConnection) -> int:
    """Makes quotes of committed orders COMMITTED, deletes the others, and returns how many it deleted.

    Skips quotes that another process has locked. Its span is the root of a trace, because that of a caller that polls
    is not sampled.
    """
    lock = select_to_settle(settlement, now).with_for_update(skip_locked=True)
    locked = set(await connection.scalars(lock))
    if committed := locked & settlement.committed:
        await _finish(committed, connection, state=State.COMMITTED)
    if unwanted := locked - settlement.committed:
        with tracer.start_as_current_span("purge quotes", context=Context()) as span:
            span.set_attribute("pricing.deleted_quotes", len(unwanted))
            await _delete(unwanted, connection)
    return len(unwanted)


def select_to_settle(settlement: Settlement, now: datetime) -> Select[str]:
    """Selects the ids of the quotes that a settlement changes."""
    id_, is_old = quotes.c.quote_id, quotes.c.create_time < settlement.create_time_before
    is_unused = quotes.c.last_attempt_time < now - IN_USE
    return (
        select(id_)
        .where(
            quotes.c.state != State.COMMITTED,
            or_(
                id_.in_(settlement.committed),
                and_(id_.in_(settlement.finished), is_old),
                and_(id_.in_(settlement.orphaned), is_old, is_unused),
            ),
        )
        .order_by(id_)
    )


def select_unsettled(before: datetime, after: str, limit: int) -> Select[str]:
    """Selects the ids, after one of them, of quotes that are not COMMITTED and were created before a time.

    The index `unsettled_quotes` has all that it reads, in its order, and no COMMITTED quote.
    """
    page = (UNSETTLED, quotes.c.quote_id > after, quotes.c.create_time < before)
    return select(quotes.c.quote_id).where(*page).order_by(quotes.c.quote_id).limit(limit)


async def find(connection: AsyncConnection, quote_id: str, *, lock: bool = False) -> Quote | None:
    """The quote as it is stored; `lock` prevents changes by others until the transaction ends."""
    rows = (await connection.execute(_FIND_AND_LOCK if lock else _FIND, {"id": quote_id})).all()
    if not rows:
        return None
    head = rows[0]
    return Quote(
        quote_id=quote_id,
        fingerprint=head.fingerprint,
        lines=tuple(
            QuoteLine(
                Line(row.sku, row.quantity), Money(head.currency, row.unit_minor), Money(head.currency, row.line_minor)
            )
            for row in rows
        ),
        total=Money(head.currency, head.total_minor),
        create_time=head.create_time,
        state=State(head.state),
    )


async def _claim_id(order: Order, now: datetime, connection: AsyncConnection) -> bool:
    """Inserts the quote without prices; False if its id exists. Waits for a concurrent request with the same id.

    It is the first statement of its transaction, so that a concurrent undo waits for the whole of it.
    """
    return await insert_once(
        connection,
        quotes,
        quote_id=order.request_id,
        fingerprint=order.fingerprint,
        currency=order.currency,
        total_minor=0,
        create_time=now,
        state=State.OPEN,
        last_attempt_time=now,
    )


async def _wait_for_concurrent_claim(quote_id: str, now: datetime, connection: AsyncConnection) -> None:
    """Waits for a concurrent attempt at the same id, which still runs after its caller has disconnected."""
    if await _claim_id(Order(quote_id, (), "", ""), now, connection):
        await _delete([quote_id], connection)


async def _join(order: Order, existing: Quote, now: datetime, connection: AsyncConnection) -> None:
    """Adds this attempt unless attempts no longer matter."""
    if existing.fingerprint != order.fingerprint:
        raise RequestIdReused(order.request_id)
    this_quote = quotes.c.quote_id == existing.quote_id
    await connection.execute(update(quotes).where(this_quote).values(last_attempt_time=now))
    if existing.state is State.OPEN:
        if not await _has_attempts(existing.quote_id, connection):  # a process of the previous release inserted it
            await _add_attempt(replace(order, attempt_id=""), connection)
        await _add_attempt(order, connection)


async def _has_attempts(quote_id: str, connection: AsyncConnection) -> bool:
    any_attempt = select(quote_attempts.c.attempt_id).where(quote_attempts.c.quote_id == quote_id).limit(1)
    return await connection.scalar(any_attempt) is not None


async def _add_attempt(order: Order, connection: AsyncConnection) -> None:
    await insert_once(connection, quote_attempts, quote_id=order.request_id, attempt_id=order.attempt_id)


async def _fill(quote: Quote, connection: AsyncConnection) -> None:
    """Adds the prices to a quote whose id the transaction has claimed."""
    this_quote = quotes.c.quote_id == quote.quote_id
    await connection.execute(update(quotes).where(this_quote).values(total_minor=quote.total.minor))
    await connection.execute(quote_lines.insert(), _line_rows(quote))


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


async def _finish(ids: Collection[str], connection: AsyncConnection, **values: object) -> None:
    """Changes quotes that the transaction has locked, and removes their attempts, which no longer matter."""
    await connection.execute(update(quotes).where(quotes.c.quote_id.in_(ids)).values(values))
    await connection.execute(delete(quote_attempts).where(quote_attempts.c.quote_id.in_(ids)))


async def _delete(ids: Collection[str], connection: AsyncConnection) -> None:
    """Deletes quotes with their lines; their attempts go with them."""
    await connection.execute(delete(quote_lines).where(quote_lines.c.quote_id.in_(ids)))
    await connection.execute(delete(quotes).where(quotes.c.quote_id.in_(ids)))
