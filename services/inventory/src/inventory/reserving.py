"""The transactions that create and finish reservations. Each runs inside one `Database.write`.

All take locks in one order, the reservation before its stock, and stock by SKU, so on PostgreSQL no two transactions
deadlock. (SQLite runs one write transaction at a time.) Units are returned or removed in the same transaction that
finishes the reservation: exactly once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

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

    from sqlalchemy import BindParameter, Connection, Select

    Clock = Callable[[], datetime]
    Columns = tuple[str, str, str, datetime, datetime, str, int]

_WITH_LINES = select(
    reservations.c.reservation_id,
    reservations.c.fingerprint,
    reservations.c.state,
    reservations.c.create_time,
    reservations.c.expire_time,
    reservation_lines.c.sku,
    reservation_lines.c.quantity,
).join_from(reservations, reservation_lines)
FIND = _WITH_LINES.where(reservations.c.reservation_id == bindparam("id")).order_by(reservation_lines.c.position)
FIND_MANY = _WITH_LINES.where(reservations.c.reservation_id.in_(bindparam("ids", expanding=True))).order_by(
    reservations.c.reservation_id, reservation_lines.c.position
)
_FIND_AND_LOCK = FIND.with_for_update(of=reservations)

_ADD_LINES = reservation_lines.insert()
_CHANGE_MANY = update(reservations).where(reservations.c.reservation_id.in_(bindparam("ids", expanding=True)))
_REMOVE_ATTEMPTS = delete(reservation_attempts).where(
    reservation_attempts.c.reservation_id.in_(bindparam("ids", expanding=True))
)
_LOCK_STOCK = (
    select(stock.c.sku, stock.c.on_hand - stock.c.reserved)
    .where(stock.c.sku.in_(bindparam("skus", expanding=True)))
    .order_by(stock.c.sku)
    .with_for_update(key_share=True)
)
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


def reserve(request: ReservationRequest, hold: timedelta, clock: Clock, connection: Connection) -> Reservation:
    """Creates the reservation, or adds this attempt to the existing one. See InventoryStore.reserve.

    Raises:
        UnitsOverdue: sweep, then try again.
    """
    while not (created := _claim_id(request, hold, clock(), connection)):
        existing = _find_and_lock(request.request_id, connection)
        if existing:  # otherwise it was just undone: claim the id again
            _add_attempt(request, existing, connection)
            return existing.at(clock())
    try:
        _hold(request.lines, connection)
    except InsufficientStock:
        if connection.scalar(select_expired(clock(), limit=1)) is None:
            raise
        raise UnitsOverdue from None
    connection.execute(_ADD_LINES, _line_rows(request))
    _add_attempt(request, created, connection)
    return created


def undo(request_id: str, attempt_id: str, clock: Clock, connection: Connection) -> bool:
    """Removes one attempt, and with the last attempt the reservation, which no caller has received."""
    reservation = _find_and_lock(request_id, connection)
    if reservation is None:
        _wait_for_concurrent_claim(request_id, clock(), connection)
        reservation = _find_and_lock(request_id, connection)
    if reservation is None or reservation.at(clock()).state is not State.RESERVED:
        return False
    attempts = reservation_attempts.c
    this_attempt = (attempts.reservation_id == request_id, attempts.attempt_id == attempt_id)
    connection.execute(delete(reservation_attempts).where(*this_attempt))
    others = select(attempts.attempt_id).where(attempts.reservation_id == request_id).limit(1)
    if connection.scalar(others) is not None:
        return False
    _change_stock(reservation.lines, connection, reserved=-1)
    _delete(request_id, connection)
    return True


def settle(reservation_id: str, fingerprint: str, target: State, clock: Clock, connection: Connection) -> Reservation:
    """Makes a reservation COMMITTED or RELEASED. See InventoryStore.commit and release."""
    reservation = _find_and_lock(reservation_id, connection)
    if reservation is None or fingerprint not in {"", reservation.fingerprint}:
        raise UnknownReservation(reservation_id)
    if reservation.at(clock()).needs_change_to(target):
        finish([reservation_id], reservation.lines, target, connection)
    return replace(reservation, state=target)


def select_expired(now: datetime | BindParameter[datetime], limit: int) -> Select[str]:
    """Selects the ids of reservations that have expired and are not swept yet, oldest first."""
    columns = reservations.c
    overdue = (columns.state == State.RESERVED, columns.expire_time <= now)
    return select(columns.reservation_id).where(*overdue).order_by(columns.expire_time).limit(limit)


def finish(ids: list[str], lines: Iterable[Line], state: State, connection: Connection) -> None:
    """Sets the final state of reservations that the transaction has locked, and updates the stock of their lines."""
    connection.execute(_CHANGE_MANY, {"ids": ids, "state": state})
    connection.execute(_REMOVE_ATTEMPTS, {"ids": ids})
    _change_stock(lines, connection, on_hand=-1 if state is State.COMMITTED else 0, reserved=-1)


def to_reservation(rows: Sequence[Columns]) -> Reservation:
    """The reservation of some rows of FIND, one for each line, as it is stored."""
    id_, fingerprint, state, create_time, expire_time, *_ = rows[0]
    lines = tuple(Line(sku, quantity) for *_, sku, quantity in rows)
    return Reservation(id_, fingerprint, State(state), lines, create_time, expire_time)


def to_reservations(rows: Iterable[Columns]) -> dict[str, Reservation]:
    """The reservations of the rows of FIND_MANY, by id."""
    return {id_: to_reservation(list(group)) for id_, group in groupby(rows, key=itemgetter(0))}


def _find_and_lock(reservation_id: str, connection: Connection) -> Reservation | None:
    """The reservation as it is stored, which no other transaction changes until this one ends."""
    rows = connection.execute(_FIND_AND_LOCK, {"id": reservation_id}).all()
    return to_reservation(rows) if rows else None


def _claim_id(
    request: ReservationRequest, hold: timedelta, now: datetime, connection: Connection
) -> Reservation | None:
    """Inserts the reservation; None if its id exists. Waits for a concurrent request with the same id."""
    new = Reservation(request.request_id, request.fingerprint, State.RESERVED, request.lines, now, now + hold)
    is_new = insert_once(
        connection,
        reservations,
        reservation_id=new.reservation_id,
        fingerprint=new.fingerprint,
        state=new.state,
        create_time=new.create_time,
        expire_time=new.expire_time,
    )
    return new if is_new else None


def _wait_for_concurrent_claim(request_id: str, now: datetime, connection: Connection) -> None:
    """Waits for a concurrent attempt at the same id, which still runs after its caller has disconnected."""
    if _claim_id(ReservationRequest(request_id, "", (), ""), timedelta(), now, connection):
        _delete(request_id, connection)


def _delete(reservation_id: str, connection: Connection) -> None:
    connection.execute(delete(reservations).where(reservations.c.reservation_id == reservation_id))


def _add_attempt(request: ReservationRequest, reservation: Reservation, connection: Connection) -> None:
    """Adds this attempt unless the stored state is final; `expire_time` does not matter, because clocks differ."""
    if reservation.fingerprint != request.fingerprint:
        raise RequestIdReused(request.request_id)
    if reservation.state is State.RESERVED:
        attempt = {"reservation_id": request.request_id, "attempt_id": request.attempt_id}
        insert_once(connection, reservation_attempts, **attempt)


def _hold(lines: Collection[Line], connection: Connection) -> None:
    locked = connection.execute(_LOCK_STOCK, {"skus": sorted(line.sku for line in lines)})
    available = {sku: units for sku, units in locked}  # noqa: C416 - dict() takes its keys
    for line in lines:
        if line.sku not in available:
            raise UnknownSku(line.sku)
        if available[line.sku] < line.quantity:
            raise InsufficientStock(line, available[line.sku])
    _change_stock(lines, connection, reserved=+1)


def _line_rows(request: ReservationRequest) -> list[dict[str, str | int]]:
    return [
        {"reservation_id": request.request_id, "position": position, "sku": line.sku, "quantity": line.quantity}
        for position, line in enumerate(request.lines)
    ]


def _change_stock(lines: Iterable[Line], connection: Connection, *, on_hand: int = 0, reserved: int) -> None:
    """Changes stock by each line's quantity times `on_hand` and `reserved`."""
    changes = [
        {
            "changed_sku": line.sku,
            "on_hand_change": on_hand * line.quantity,
            "reserved_change": reserved * line.quantity,
        }
        for line in sorted(lines, key=lambda line: line.sku)
    ]
    connection.execute(_CHANGE_STOCK, changes)
