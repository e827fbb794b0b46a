"""The transactions that create and finish reservations. Each runs inside one `Database.write`.

All take locks in one order, the reservation before its stock, and stock by SKU, so on PostgreSQL no two transactions
deadlock. (SQLite runs one write transaction at a time.) Units are returned or removed in the same transaction that
finishes the reservation: exactly once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, select, update

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
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    Clock = Callable[[], datetime]

_WITH_LINES = select(reservations, reservation_lines.c.sku, reservation_lines.c.quantity).join(reservation_lines)
_FIND = _WITH_LINES.where(reservations.c.reservation_id == bindparam("id")).order_by(reservation_lines.c.position)
_FIND_MANY = _WITH_LINES.where(reservations.c.reservation_id.in_(bindparam("ids", expanding=True))).order_by(
    reservations.c.reservation_id, reservation_lines.c.position
)
_FIND_AND_LOCK = _FIND.with_for_update(of=reservations)

_CHANGE_STOCK = (
    update(stock)
    .where(stock.c.sku == bindparam("changed_sku"))
    .values(
        on_hand=stock.c.on_hand + bindparam("on_hand_change"),
        reserved=stock.c.reserved + bindparam("reserved_change"),
        version=stock.c.version + 1,
    )
)


class UnitsOverdue(Exception):
    """There are too few units, but expired reservations still hold some."""


async def reserve(
    request: ReservationRequest, hold: timedelta, clock: Clock, connection: AsyncConnection
) -> Reservation:
    """Creates the reservation, or adds this attempt to the existing one. See InventoryStore.reserve.

    Raises:
        UnitsOverdue: sweep, then try again.
    """
    while not (created := await _claim_id(request, hold, clock(), connection)):
        existing = await find(connection, request.request_id, lock=True)
        if existing:  # otherwise it was just undone: claim the id again
            await _add_attempt(request, existing, connection)
            return existing.at(clock())
    try:
        await _hold(request.lines, connection)
    except InsufficientStock:
        if await connection.scalar(select_expired(clock(), limit=1)) is None:
            raise
        raise UnitsOverdue from None
    lines = [{"position": at, "sku": line.sku, "quantity": line.quantity} for at, line in enumerate(request.lines)]
    await connection.execute(reservation_lines.insert().values(reservation_id=request.request_id), lines)
    await _add_attempt(request, created, connection)
    return created


async def undo(request_id: str, attempt_id: str, clock: Clock, connection: AsyncConnection) -> bool:
    """Removes one attempt, and with the last attempt the reservation, which no caller has received."""
    reservation = await find(connection, request_id, lock=True)
    if reservation is None:
        await _wait_for_concurrent_claim(request_id, clock(), connection)
        reservation = await find(connection, request_id, lock=True)
    if reservation is None or reservation.at(clock()).state is not State.RESERVED:
        return False
    attempts = reservation_attempts.c
    this_attempt = (attempts.reservation_id == request_id, attempts.attempt_id == attempt_id)
    await connection.execute(delete(reservation_attempts).where(*this_attempt))
    others = select(attempts.attempt_id).where(attempts.reservation_id == request_id).limit(1)
    if await connection.scalar(others) is not None:
        return False
    await _change_stock(reservation.lines, connection, reserved=-1)
    await _delete(request_id, connection)
    return True


async def settle(
    reservation_id: str, fingerprint: str, target: State, clock: Clock, connection: AsyncConnection
) -> Reservation:
    """Makes a reservation COMMITTED or RELEASED. See InventoryStore.commit and release."""
    reservation = await find(connection, reservation_id, lock=True)
    if reservation is None or fingerprint not in {"", reservation.fingerprint}:
        raise UnknownReservation(reservation_id)
    if reservation.at(clock()).needs_change_to(target):
        await finish([reservation_id], reservation.lines, target, connection)
    return replace(reservation, state=target)


def select_expired(now: datetime, limit: int) -> Select[str]:
    """Selects the ids of reservations that have expired and are not swept yet, oldest first."""
    columns = reservations.c
    overdue = (columns.state == State.RESERVED, columns.expire_time <= now)
    return select(columns.reservation_id).where(*overdue).order_by(columns.expire_time).limit(limit)


async def finish(ids: list[str], lines: Iterable[Line], state: State, connection: AsyncConnection) -> None:
    """Sets the final state of reservations that the transaction has locked, and updates the stock of their lines."""
    await connection.execute(update(reservations).where(reservations.c.reservation_id.in_(ids)).values(state=state))
    await connection.execute(delete(reservation_attempts).where(reservation_attempts.c.reservation_id.in_(ids)))
    await _change_stock(lines, connection, on_hand=-1 if state is State.COMMITTED else 0, reserved=-1)


async def find(connection: AsyncConnection, reservation_id: str, *, lock: bool = False) -> Reservation | None:
    """The reservation as it is stored; `lock` prevents changes by others until the transaction ends."""
    rows = (await connection.execute(_FIND_AND_LOCK if lock else _FIND, {"id": reservation_id})).all()
    return _reservation(rows) if rows else None


async def find_many(connection: AsyncConnection, reservation_ids: Collection[str]) -> dict[str, Reservation]:
    """The reservations that exist, as they are stored, by id; read at one moment."""
    rows = await connection.execute(_FIND_MANY, {"ids": list(reservation_ids)})
    return {id_: _reservation(list(group)) for id_, group in groupby(rows, key=attrgetter("reservation_id"))}


def _reservation(rows: Sequence[Row[tuple[Any, ...]]]) -> Reservation:
    """The reservation of some rows, one for each line."""
    return Reservation(
        reservation_id=rows[0].reservation_id,
        fingerprint=rows[0].fingerprint,
        state=State(rows[0].state),
        lines=tuple(Line(row.sku, row.quantity) for row in rows),
        create_time=rows[0].create_time,
        expire_time=rows[0].expire_time,
    )


async def _claim_id(
    request: ReservationRequest, hold: timedelta, now: datetime, connection: AsyncConnection
) -> Reservation | None:
    """Inserts the reservation; None if its id exists. Waits for a concurrent request with the same id."""
    new = Reservation(request.request_id, request.fingerprint, State.RESERVED, request.lines, now, now + hold)
    is_new = await insert_once(
        connection,
        reservations,
        reservation_id=new.reservation_id,
        fingerprint=new.fingerprint,
        state=new.state,
        create_time=new.create_time,
        expire_time=new.expire_time,
    )
    return new if is_new else None


async def _wait_for_concurrent_claim(request_id: str, now: datetime, connection: AsyncConnection) -> None:
    """Waits for a concurrent attempt at the same id, which still runs after its caller has disconnected."""
    if await _claim_id(ReservationRequest(request_id, "", (), ""), timedelta(), now, connection):
        await _delete(request_id, connection)


async def _delete(reservation_id: str, connection: AsyncConnection) -> None:
    await connection.execute(delete(reservations).where(reservations.c.reservation_id == reservation_id))


async def _add_attempt(request: ReservationRequest, reservation: Reservation, connection: AsyncConnection) -> None:
    """Adds this attempt unless the stored state is final; `expire_time` does not matter, because clocks differ."""
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
    await _change_stock(lines, connection, reserved=+1)


async def _change_stock(lines: Iterable[Line], connection: AsyncConnection, *, on_hand: int = 0, reserved: int) -> None:
    """Changes stock by each line's quantity times `on_hand` and `reserved`."""
    changes = [
        {
            "changed_sku": line.sku,
            "on_hand_change": on_hand * line.quantity,
            "reserved_change": reserved * line.quantity,
        }
        for line in sorted(lines, key=lambda line: line.sku)
    ]
    await connection.execute(_CHANGE_STOCK, changes)
