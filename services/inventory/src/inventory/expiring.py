"""The transactions that expire overdue reservations and delete old ones. Each runs inside one `Database.write`.

On PostgreSQL they skip rows that others have locked, so several processes may run them at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context
from sqlalchemy import BigInteger, cast, delete, func, select, union_all

from inventory.domain import Line, State
from inventory.reserving import finish, select_expired
from inventory.tables import reservation_lines, reservations

if TYPE_CHECKING:
    from datetime import datetime

    from opentelemetry.trace import Tracer
    from sqlalchemy import BindParameter, Connection, Select

    Moment = datetime | BindParameter[datetime]

SWEEP_BATCH = 100
"""The most reservations that one sweep expires: it limits how long other writers wait."""

PURGE_BATCH = 100
"""The most reservations that one purge deletes, for the same reason."""


def sweep(now: datetime, tracer: Tracer, connection: Connection) -> int:
    """Makes up to SWEEP_BATCH overdue reservations EXPIRED, and returns how many."""
    lock = select_expired(now, limit=SWEEP_BATCH).with_for_update(skip_locked=True)
    overdue = list(connection.scalars(lock))
    if overdue:
        with tracer.start_as_current_span("sweep expired reservations") as span:
            span.set_attribute("inventory.expired_reservations", len(overdue))
            finish(overdue, _lines_of(overdue, connection), State.EXPIRED, connection)
    return len(overdue)


def purge(before: datetime, tracer: Tracer, connection: Connection) -> int:
    """Deletes up to PURGE_BATCH old reservations with their lines, and returns how many.

    Its span is a root, because the trace of a caller that polls is not sampled.
    """
    old = list(connection.scalars(select_old(before, limit=PURGE_BATCH, lock=True)))
    if old:
        with tracer.start_as_current_span("purge reservations", Context()) as span:
            span.set_attribute("inventory.purged_reservations", len(old))
            connection.execute(delete(reservations).where(reservations.c.reservation_id.in_(old)))
    return len(old)


def select_old(before: Moment, limit: int, *, lock: bool = False) -> Select[str]:
    """Selects the ids of RELEASED and EXPIRED reservations whose `expire_time` is before a time, oldest first.

    It merges one query for each state, because the index returns rows in order of `expire_time` only within a state.
    `lock` locks up to `limit` rows of each state.
    """
    oldest = [_oldest(state, before, limit, lock=lock).subquery() for state in (State.RELEASED, State.EXPIRED)]
    both = union_all(*(select(each) for each in oldest)).subquery()
    return select(both.c.reservation_id).order_by(both.c.expire_time).limit(limit)


def _oldest(state: State, before: Moment, limit: int, *, lock: bool) -> Select[str, datetime]:
    columns = reservations.c
    query = (
        select(columns.reservation_id, columns.expire_time)
        .where(columns.state == state, columns.expire_time < before)
        .order_by(columns.expire_time)
        .limit(limit)
    )
    return query.with_for_update(skip_locked=True) if lock else query


def _lines_of(ids: list[str], connection: Connection) -> list[Line]:
    columns = reservation_lines.c
    total = cast(func.sum(columns.quantity), BigInteger)  # PostgreSQL's sum of bigint is numeric
    query = select(columns.sku, total).where(columns.reservation_id.in_(ids)).group_by(columns.sku)
    return [Line(sku, quantity) for sku, quantity in connection.execute(query)]
