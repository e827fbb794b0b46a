"""The transactions that make and end reservations. Each runs inside one `Database.write`.

Locks are taken in one order, the reservation before its stock, and stock by SKU, so on PostgreSQL no two transactions
wait for each other. (On SQLite a write transaction is alone.) Whatever gives units back or takes them out does so in
the transaction that ends the reservation: exactly once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, bindparam, cast, delete, func, select, update

from inventory.domain import (
    InsufficientStock,
    Line,
    RequestIdReused,
    Reservation,
    ReservationRequest,
    State,
    UnknownReservation,
    UnknownSku,
)
from inventory.tables import reservation_attempts, reservation_lines, reservations, stock
from meshkit.database.columns import insert_once

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime

    from opentelemetry.trace import Tracer
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    Clock = Callable[[], datetime]

SWEEP_BATCH = 100
"""Reservations that one sweep ends at most: a bound on how long it keeps others waiting."""

_FIND = (
    select(reservations, reservation_lines.c.sku, reservation_lines.c.quantity)
    .join(reservation_lines)
    .where(reservations.c.reservation_id == bindparam("id"))
    .order_by(reservation_lines.c.position)
)
_FIND_AND_LOCK = _FIND.with_for_update(of=reservations)

_MOVE = (
    update(stock)
    .where(stock.c.sku == bindparam("moved_sku"))
    .values(
        on_hand=stock.c.on_hand + bindparam("on_hand_change"),
        reserved=stock.c.reserved + bindparam("reserved_change"),
        version=stock.c.version + 1,
    )
)


class UnitsOverdue(Exception):
    """There are too few units, but reservations have expired whose units are not given back yet."""


async def reserve(
    request: ReservationRequest, hold: timedelta, clock: Clock, connection: AsyncConnection
) -> Reservation:
    """Makes the reservation, or makes this attempt one of those that share it. See InventoryStore.reserve.

    Raises:
        UnitsOverdue: sweep first, then it may be enough.
    """
    while not (made := await _claim(request, hold, clock(), connection)):
        known = await find(connection, request.request_id, lock=True)
        if known:  # else it was undone since
            await _join(request, known, connection)
            return known.at(clock())
    try:
        await _hold(request.lines, connection)
    except InsufficientStock:
        if await connection.scalar(due(clock(), limit=1)) is None:
            raise
        raise UnitsOverdue from None
    lines = [{"position": at, "sku": line.sku, "quantity": line.quantity} for at, line in enumerate(request.lines)]
    await connection.execute(reservation_lines.insert().values(reservation_id=request.request_id), lines)
    await _join(request, made, connection)
    return made


async def undo(request_id: str, attempt_id: str, clock: Clock, connection: AsyncConnection) -> bool:
    """Takes back one attempt; without attempts left, nobody was told of the reservation, and it disappears."""
    known = await find(connection, request_id, lock=True)
    if known is None:
        await _until_made(request_id, clock(), connection)
        known = await find(connection, request_id, lock=True)
    if known is None or known.at(clock()).state is not State.RESERVED:
        return False
    attempts = reservation_attempts.c
    mine = (attempts.reservation_id == request_id, attempts.attempt_id == attempt_id)
    await connection.execute(delete(reservation_attempts).where(*mine))
    others = select(attempts.attempt_id).where(attempts.reservation_id == request_id).limit(1)
    if await connection.scalar(others) is not None:
        return False
    await _move(known.lines, connection, reserved=-1)
    await _remove(request_id, connection)
    return True


async def settle(
    reservation_id: str, fingerprint: str, target: State, clock: Clock, connection: AsyncConnection
) -> Reservation:
    """Makes a reservation COMMITTED or RELEASED. See InventoryStore.commit and release."""
    known = await find(connection, reservation_id, lock=True)
    if known is None or fingerprint not in {"", known.fingerprint}:
        raise UnknownReservation(reservation_id)
    if known.at(clock()).must_become(target):
        await _end([reservation_id], known.lines, target, connection)
    return replace(known, state=target)


async def sweep(now: datetime, tracer: Tracer, connection: AsyncConnection) -> int:
    """Makes up to SWEEP_BATCH overdue reservations EXPIRED, and answers how many.

    Those that another process is just ending are left to it.
    """
    lock = due(now, limit=SWEEP_BATCH).with_for_update(skip_locked=True)
    overdue = list(await connection.scalars(lock))
    if overdue:
        with tracer.start_as_current_span("sweep expired reservations") as span:
            span.set_attribute("inventory.expired_reservations", len(overdue))
            await _end(overdue, await _lines_of(overdue, connection), State.EXPIRED, connection)
    return len(overdue)


def due(now: datetime, limit: int) -> Select[str]:
    """The ids of reservations that have expired and are not swept yet, the oldest first."""
    columns = reservations.c
    overdue = (columns.state == State.RESERVED, columns.expire_time <= now)
    return select(columns.reservation_id).where(*overdue).order_by(columns.expire_time).limit(limit)


async def find(connection: AsyncConnection, reservation_id: str, *, lock: bool = False) -> Reservation | None:
    """Reads a reservation as it is stored, and keeps others from changing it until the transaction ends if asked."""
    rows = (await connection.execute(_FIND_AND_LOCK if lock else _FIND, {"id": reservation_id})).all()
    if not rows:
        return None
    return Reservation(
        reservation_id=reservation_id,
        fingerprint=rows[0].fingerprint,
        state=State(rows[0].state),
        lines=tuple(Line(row.sku, row.quantity) for row in rows),
        create_time=rows[0].create_time,
        expire_time=rows[0].expire_time,
    )


async def _claim(
    request: ReservationRequest, hold: timedelta, now: datetime, connection: AsyncConnection
) -> Reservation | None:
    """Takes the request's id, unless it is taken. One who is just taking it is waited for."""
    fresh = Reservation(request.request_id, request.fingerprint, State.RESERVED, request.lines, now, now + hold)
    taken = await insert_once(
        connection,
        reservations,
        reservation_id=fresh.reservation_id,
        fingerprint=fresh.fingerprint,
        state=fresh.state,
        create_time=fresh.create_time,
        expire_time=fresh.expire_time,
    )
    return fresh if taken else None


async def _until_made(request_id: str, now: datetime, connection: AsyncConnection) -> None:
    """Waits for an attempt that is just taking the id: its caller may have gone before it was through."""
    if await _claim(ReservationRequest(request_id, "", (), ""), timedelta(), now, connection):
        await _remove(request_id, connection)


async def _remove(reservation_id: str, connection: AsyncConnection) -> None:
    await connection.execute(delete(reservations).where(reservations.c.reservation_id == reservation_id))


async def _join(request: ReservationRequest, reservation: Reservation, connection: AsyncConnection) -> None:
    """Makes this attempt one of the reservation's, until that has ended for good: by its state, not by any clock."""
    if reservation.fingerprint != request.fingerprint:
        raise RequestIdReused(request.request_id)
    if reservation.state is State.RESERVED:
        attempt = {"reservation_id": request.request_id, "attempt_id": request.attempt_id}
        await insert_once(connection, reservation_attempts, **attempt)


async def _hold(lines: Collection[Line], connection: AsyncConnection) -> None:
    lock = (
        select(stock.c.sku, stock.c.on_hand - stock.c.reserved)
        .where(stock.c.sku.in_(sorted(line.sku for line in lines)))
        .order_by(stock.c.sku)
        .with_for_update(key_share=True)
    )
    available = {sku: units for sku, units in await connection.execute(lock)}  # noqa: C416 - dict() takes its keys
    for line in lines:
        if line.sku not in available:
            raise UnknownSku(line.sku)
        if available[line.sku] < line.quantity:
            raise InsufficientStock(line, available[line.sku])
    await _move(lines, connection, reserved=+1)


async def _end(ids: list[str], lines: Iterable[Line], state: State, connection: AsyncConnection) -> None:
    """Ends reservations that the transaction has locked, and accounts for all their lines."""
    await connection.execute(update(reservations).where(reservations.c.reservation_id.in_(ids)).values(state=state))
    await connection.execute(delete(reservation_attempts).where(reservation_attempts.c.reservation_id.in_(ids)))
    await _move(lines, connection, on_hand=-1 if state is State.COMMITTED else 0, reserved=-1)


async def _lines_of(ids: list[str], connection: AsyncConnection) -> list[Line]:
    columns = reservation_lines.c
    total = cast(func.sum(columns.quantity), BigInteger)  # PostgreSQL's sum of bigint is numeric
    query = select(columns.sku, total).where(columns.reservation_id.in_(ids)).group_by(columns.sku)
    return [Line(sku, quantity) for sku, quantity in await connection.execute(query)]


async def _move(lines: Iterable[Line], connection: AsyncConnection, *, on_hand: int = 0, reserved: int) -> None:
    """Changes stock by each line's quantity times `on_hand` and `reserved`."""
    moves = [
        {"moved_sku": line.sku, "on_hand_change": on_hand * line.quantity, "reserved_change": reserved * line.quantity}
        for line in sorted(lines, key=lambda line: line.sku)
    ]
    await connection.execute(_MOVE, moves)
