"""Stock and reservations in a SQL database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, update

from inventory import expiring, reserving
from inventory.domain import (
    AdjustmentBelowReserved,
    Page,
    RequestIdReused,
    State,
    Stock,
    UnknownReservation,
    UnknownSku,
)
from inventory.tables import adjustments, stock
from meshkit.database.columns import insert_once

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime, timedelta

    from opentelemetry.trace import Tracer
    from sqlalchemy import Connection

    from inventory.domain import Adjustment, Reservation, ReservationRequest
    from meshkit.database.database import Database

_COLUMNS = [stock.c[name] for name in Stock._fields]
_STOCKS = select(*_COLUMNS).where(stock.c.sku.in_(bindparam("skus", expanding=True)))
_EXPIRED = reserving.select_expired(bindparam("now"), limit=1)
_OLD = expiring.select_old(bindparam("before"), limit=1)
_PAGE = select(*_COLUMNS).where(stock.c.sku > bindparam("after")).order_by(stock.c.sku).limit(bindparam("limit"))


class InventoryStore:
    """The store, on SQLite or PostgreSQL. It caches nothing, so several processes may share one database.

    Every method may also raise DatabaseUnavailable.

    Args:
        database: the caller closes it.
        clock: returns the current time, an aware datetime.
        hold: the lifetime of a reservation.
        tracer: creates a span for each sweep or purge that finds reservations.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], hold: timedelta, tracer: Tracer) -> None:
        self._database = database
        self._clock = clock
        self._hold = hold
        self._tracer = tracer

    async def stocks(self, skus: Collection[str]) -> dict[str, Stock]:
        """The stock of each SKU that exists, by SKU, read at one moment."""
        found = _stocks(await self._database.fetch(_STOCKS, {"skus": list(skus)}))
        return {each.sku: each for each in found}

    async def page(self, after: str, size: int) -> Page:
        """The next `size` stocks whose SKUs sort after `after`."""
        found = _stocks(await self._database.fetch(_PAGE, {"after": after, "limit": size + 1}))
        stocks = tuple(found[:size])
        return Page(stocks, stocks[-1].sku if len(found) > size else None)

    async def adjust(self, adjustment: Adjustment) -> Stock:
        """Changes the units on hand, once, and returns the current stock.

        Raises:
            RequestIdReused: the id was used for a different adjustment.
            UnknownSku: there is no stock of the SKU.
            AdjustmentBelowReserved: fewer units would be left than are reserved.
        """
        return await self._database.write(partial(_adjust, adjustment))

    async def reserve(self, request: ReservationRequest) -> Reservation:
        """Holds all lines or none; a repeat of the request returns the current reservation.

        If there are too few units, expired reservations are swept first.

        Raises:
            RequestIdReused: the id was used with another fingerprint.
            UnknownSku, InsufficientStock: for the first such line, in the order of the request.
        """
        work = partial(reserving.reserve, request, self._hold, self._clock)
        while True:
            try:
                return await self._database.write(work)
            except reserving.UnitsOverdue:
                await self.sweep()

    async def undo(self, request_id: str, attempt_id: str) -> bool:
        """Removes one attempt, and with the last one the reservation; returns whether it removed the reservation."""
        return await self._database.write(partial(reserving.undo, request_id, attempt_id, self._clock))

    async def reservation(self, reservation_id: str) -> Reservation:
        """Reads a reservation.

        Raises:
            UnknownReservation: no reservation has this id.
        """
        rows = await self._database.fetch(reserving.FIND, {"id": reservation_id})
        if not rows:
            raise UnknownReservation(reservation_id)
        return reserving.to_reservation(rows).at(self._clock())

    async def reservations(self, reservation_ids: Collection[str]) -> dict[str, Reservation]:
        """Each reservation that exists, by id, read at one moment."""
        rows = await self._database.fetch(reserving.FIND_MANY, {"ids": list(reservation_ids)})
        now = self._clock()
        return {id_: reservation.at(now) for id_, reservation in reserving.to_reservations(rows).items()}

    async def commit(self, reservation_id: str, fingerprint: str = "") -> Reservation:
        """Removes the units from the warehouse, once. A reservation with another fingerprint counts as unknown.

        Raises:
            UnknownReservation, ReservationReleased, ReservationExpired: there is nothing to commit.
        """
        work = partial(reserving.settle, reservation_id, fingerprint, State.COMMITTED, self._clock)
        return await self._database.write(work)

    async def release(self, reservation_id: str, fingerprint: str = "") -> Reservation:
        """Makes the units available again, once. A reservation with another fingerprint counts as unknown.

        Raises:
            UnknownReservation, ReservationCommitted, ReservationExpired: there is nothing to release.
        """
        work = partial(reserving.settle, reservation_id, fingerprint, State.RELEASED, self._clock)
        return await self._database.write(work)

    async def sweep(self) -> int:
        """Returns the units of some expired reservations to stock; returns how many reservations, 0 when none is left.

        Takes no lock when no reservation has expired.
        """
        now = self._clock()
        if not await self._database.fetch(_EXPIRED, {"now": now}):
            return 0
        return await self._database.write(partial(expiring.sweep, now, self._tracer))

    async def purge(self, before: datetime) -> int:
        """Deletes some reservations that are stored as RELEASED or EXPIRED and whose `expire_time` is before a time.

        Deletes the oldest first, and returns how many it deleted. Takes no lock if there is nothing to delete.
        """
        if not await self._database.fetch(_OLD, {"before": before}):
            return 0
        return await self._database.write(partial(expiring.purge, before, self._tracer))


def _adjust(adjustment: Adjustment, connection: Connection) -> Stock:
    sku, delta = adjustment.sku, adjustment.delta
    if not insert_once(connection, adjustments, request_id=adjustment.request_id, sku=sku, delta=delta):
        return _stock_after_repeat(adjustment, connection)
    change = (
        update(stock)
        .where(stock.c.sku == sku, stock.c.on_hand + delta >= stock.c.reserved)
        .values(on_hand=stock.c.on_hand + delta, version=stock.c.version + 1)
        .returning(*_COLUMNS)
    )
    if row := connection.execute(change).one_or_none():
        return Stock(*row)
    raise AdjustmentBelowReserved(_require_stock(sku, connection), delta)


def _stock_after_repeat(adjustment: Adjustment, connection: Connection) -> Stock:
    first = select(adjustments).where(adjustments.c.request_id == adjustment.request_id)
    row = connection.execute(first).one()
    if (row.sku, row.delta) != (adjustment.sku, adjustment.delta):
        raise RequestIdReused(adjustment.request_id)
    return _require_stock(adjustment.sku, connection)


def _require_stock(sku: str, connection: Connection) -> Stock:
    row = connection.execute(select(*_COLUMNS).where(stock.c.sku == sku)).one_or_none()
    if row is None:
        raise UnknownSku(sku)
    return Stock(*row)


def _stocks(rows: Iterable[tuple[Any, ...]]) -> list[Stock]:
    return [Stock(*row) for row in rows]
