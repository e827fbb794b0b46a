"""The transactions that create, confirm and delete quotes. Each runs inside one `Database.write`.

All lock a quote before they change its lines and attempts, and those that lock several skip what others have locked, so
on PostgreSQL no two transactions deadlock. (SQLite runs one write transaction at a time.)
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from sqlalchemy import Integer, and_, bindparam, delete, or_, select, update

from meshkit.database.columns import insert_once
from pricing.book_query import BOOK, book_parameters, to_book
from pricing.domain import Line, Money, Order, Quote, QuoteLine, RequestIdReused, State, UnknownQuote
from pricing.tables import UNSETTLED, quote_attempts, quote_lines, quotes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from opentelemetry.trace import Tracer
    from sqlalchemy import Connection

    from pricing.domain import Settlement

    Clock = Callable[[], datetime]
    Columns = tuple[str, str, str, int, datetime, str, str, int, int, int]

IN_USE = timedelta(minutes=1)
"""How long after its last attempt a quote without a reservation may still get one: no request takes longer."""

FIND = (
    select(
        quotes.c.quote_id,
        quotes.c.fingerprint,
        quotes.c.currency,
        quotes.c.total_minor,
        quotes.c.create_time,
        quotes.c.state,
        quote_lines.c.sku,
        quote_lines.c.quantity,
        quote_lines.c.unit_minor,
        quote_lines.c.total_minor.label("line_minor"),
    )
    .join_from(quotes, quote_lines)
    .where(quotes.c.quote_id == bindparam("id"))
    .order_by(quote_lines.c.position)
)
_FIND_AND_LOCK = FIND.with_for_update(of=quotes)
_CHANGE = update(quotes).where(quotes.c.quote_id == bindparam("id"))
_CHANGE_MANY = update(quotes).where(quotes.c.quote_id.in_(bindparam("ids", expanding=True)))
_ADD_LINES = quote_lines.insert()
_REMOVE_ATTEMPTS = delete(quote_attempts).where(quote_attempts.c.quote_id.in_(bindparam("ids", expanding=True)))
_id, _IS_OLD = quotes.c.quote_id, quotes.c.create_time < bindparam("before")

TO_SETTLE = (
    select(_id)
    .where(
        quotes.c.state != State.COMMITTED,
        or_(
            _id.in_(bindparam("committed", expanding=True)),
            and_(_id.in_(bindparam("finished", expanding=True)), _IS_OLD),
            and_(
                _id.in_(bindparam("orphaned", expanding=True)),
                _IS_OLD,
                quotes.c.last_attempt_time < bindparam("unused"),
            ),
        ),
    )
    .order_by(_id)
)
"""The ids of the quotes that a settlement changes."""
_LOCK_TO_SETTLE = TO_SETTLE.with_for_update(skip_locked=True)

LIST_STEP, NO_ID = 100, ""

UNSETTLED_PAGE = (
    select(_id)
    .where(UNSETTLED, _id > bindparam("after"), _IS_OLD)
    .order_by(_id)
    .limit(bindparam("size", type_=Integer))
)
"""The ids, after one of them, of quotes that are not COMMITTED and were created before a time.

The index `unsettled_quotes` has all that it reads, in its order, and no COMMITTED quote.
"""
_LOCK = select(quotes.c.state).where(quotes.c.quote_id == bindparam("id")).with_for_update()


def create(order: Order, clock: Clock, connection: Connection) -> Quote:
    """Creates the quote, or adds this attempt to the existing one. See PriceStore.create_quote."""
    while not _claim_id(order, now := clock(), connection):
        existing = _find_and_lock(order.request_id, connection)
        if existing:  # otherwise it was just deleted: claim the id again
            _join(order, existing, clock(), connection)
            return existing
    parameters = book_parameters([line.sku for line in order.lines], order.currency, now)
    quote = to_book(connection.execute(BOOK, parameters), now).quote(order)
    _fill(quote, connection)
    _add_attempt(order, connection)
    return quote


def undo(quote_id: str, attempt_id: str, clock: Clock, connection: Connection) -> bool:
    """Removes one attempt, and with the last attempt the quote, which no caller has received."""
    state = connection.scalar(_LOCK, {"id": quote_id})
    if state is None:
        _wait_for_concurrent_claim(quote_id, clock(), connection)
        state = connection.scalar(_LOCK, {"id": quote_id})
    if state != State.OPEN:
        return False
    attempts = quote_attempts.c
    this_attempt = (attempts.quote_id == quote_id, attempts.attempt_id == attempt_id)
    removed = connection.execute(delete(quote_attempts).where(*this_attempt))
    if removed.rowcount == 0 or _has_attempts(quote_id, connection):
        return False
    _delete([quote_id], connection)
    return True


def confirm(quote_id: str, clock: Clock, connection: Connection) -> Quote:
    """Makes an OPEN quote CONFIRMED. See PriceStore.confirm_quote."""
    quote = _find_and_lock(quote_id, connection)
    if quote is None:
        raise UnknownQuote(quote_id)
    if quote.state is not State.OPEN:
        return quote
    _finish([quote_id], connection, state=State.CONFIRMED, last_attempt_time=clock())
    return replace(quote, state=State.CONFIRMED)


def settle(settlement: Settlement, now: datetime, tracer: Tracer, connection: Connection) -> int:
    """Makes quotes of committed orders COMMITTED, deletes the others, and returns how many it deleted.

    Skips quotes that another process has locked. Its span is the root of a trace, because that of a caller that polls
    is not sampled.
    """
    locked = set(connection.scalars(_LOCK_TO_SETTLE, to_settle(settlement, now)))
    if committed := locked & settlement.committed:
        _finish(committed, connection, state=State.COMMITTED)
    if unwanted := locked - settlement.committed:
        with tracer.start_as_current_span("purge quotes", context=Context()) as span:
            span.set_attribute("pricing.deleted_quotes", len(unwanted))
            _delete(unwanted, connection)
    return len(unwanted)


def to_settle(settlement: Settlement, now: datetime) -> dict[str, object]:
    """The parameters of TO_SETTLE. Each length of a list is another statement, so lists are filled up to a few."""
    ids = {name: _filled(getattr(settlement, name)) for name in ("committed", "finished", "orphaned")}
    return {**ids, "before": settlement.create_time_before, "unused": now - IN_USE}


def _filled(ids: Collection[str]) -> list[str]:
    return [*ids, *[NO_ID] * (-len(ids) % LIST_STEP)]


def to_quote(rows: Sequence[Columns]) -> Quote:
    """The quote of some rows of FIND, one for each line, as it is stored."""
    id_, fingerprint, currency, total, create_time, state, *_ = rows[0]
    lines = tuple(
        QuoteLine(Line(sku, quantity), Money(currency, unit), Money(currency, line_total))
        for *_, sku, quantity, unit, line_total in rows
    )
    return Quote(id_, fingerprint, lines, Money(currency, total), create_time, State(state))


def _find_and_lock(quote_id: str, connection: Connection) -> Quote | None:
    """The quote as it is stored, which no other transaction changes until this one ends."""
    rows = connection.execute(_FIND_AND_LOCK, {"id": quote_id}).all()
    return to_quote(rows) if rows else None


def _claim_id(order: Order, now: datetime, connection: Connection) -> bool:
    """Inserts the quote without prices; False if its id exists. Waits for a concurrent request with the same id.

    It is the first statement of its transaction, so that a concurrent undo waits for the whole of it.
    """
    return insert_once(
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


def _wait_for_concurrent_claim(quote_id: str, now: datetime, connection: Connection) -> None:
    """Waits for a concurrent attempt at the same id, which still runs after its caller has disconnected."""
    if _claim_id(Order(quote_id, (), "", ""), now, connection):
        _delete([quote_id], connection)


def _join(order: Order, existing: Quote, now: datetime, connection: Connection) -> None:
    """Adds this attempt unless attempts no longer matter."""
    if existing.fingerprint != order.fingerprint:
        raise RequestIdReused(order.request_id)
    connection.execute(_CHANGE, {"id": existing.quote_id, "last_attempt_time": now})
    if existing.state is State.OPEN:
        if not _has_attempts(existing.quote_id, connection):  # a process of the previous release inserted it
            _add_attempt(replace(order, attempt_id=""), connection)
        _add_attempt(order, connection)


def _has_attempts(quote_id: str, connection: Connection) -> bool:
    any_attempt = select(quote_attempts.c.attempt_id).where(quote_attempts.c.quote_id == quote_id).limit(1)
    return connection.scalar(any_attempt) is not None


def _add_attempt(order: Order, connection: Connection) -> None:
    insert_once(connection, quote_attempts, quote_id=order.request_id, attempt_id=order.attempt_id)


def _fill(quote: Quote, connection: Connection) -> None:
    """Adds the prices to a quote whose id the transaction has claimed."""
    connection.execute(_CHANGE, {"id": quote.quote_id, "total_minor": quote.total.minor})
    connection.execute(_ADD_LINES, _line_rows(quote))


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


def _finish(ids: Collection[str], connection: Connection, **values: object) -> None:
    """Changes quotes that the transaction has locked, and removes their attempts, which no longer matter."""
    connection.execute(_CHANGE_MANY, {"ids": list(ids), **values})
    connection.execute(_REMOVE_ATTEMPTS, {"ids": list(ids)})


def _delete(ids: Collection[str], connection: Connection) -> None:
    """Deletes quotes with their lines; their attempts go with them."""
    connection.execute(delete(quote_lines).where(quote_lines.c.quote_id.in_(ids)))
    connection.execute(delete(quotes).where(quotes.c.quote_id.in_(ids)))
