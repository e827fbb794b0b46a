"""Stock and reservations in a SQL database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from inventory import reserving
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
    from collections.abc import Callable, Collection
    from datetime import datetime, timedelta

    from opentelemetry.trace import Tracer
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from inventory.domain import Adjustment, Reservation, ReservationRequest
    from meshkit.database.database import Database


class InventoryStore:
    """The store, on SQLite or PostgreSQL. It keeps nothing in memory: several processes may share one database.

    Every method may also raise DatabaseUnavailable.

    Args:
        database: where; the caller closes it.
        clock: the present time, an aware datetime.
        hold: how long a reservation lasts.
        tracer: makes the span of a sweep that found something.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], hold: timedelta, tracer: Tracer) -> None:
        self._database = database
        self._clock = clock
        self._hold = hold
        self._tracer = tracer

    async def stocks(self, skus: Collection[str]) -> dict[str, Stock]:
        """The stock of the known ones among some SKUs, by SKU, of one moment."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(stock).where(stock.c.sku.in_(sorted(skus))))
        return {row.sku: _stock(row) for row in rows}

    async def page(self, after: str, size: int) -> Page:
        """The next `size` stocks whose SKUs sort after `after`."""
        query = select(stock).where(stock.c.sku > after).order_by(stock.c.sku).limit(size + 1)
        async with self._database.read() as connection:
            found = [_stock(row) for row in await connection.execute(query)]
        stocks = tuple(found[:size])
        return Page(stocks, stocks[-1].sku if len(found) > size else None)

    async def adjust(self, adjustment: Adjustment) -> Stock:
        """Changes what is on hand, once, and returns the stock as it is now.

        Raises:
            RequestIdReused: the id is known with another adjustment.
            UnknownSku: there is no such stock.
            AdjustmentBelowReserved: too few units would be left.
        """
        return await self._database.write(partial(_adjust, adjustment))

    async def reserve(self, request: ReservationRequest) -> Reservation:
        """Holds all lines or none; the same request again returns the reservation as it is now.

        Units whose reservations have just expired refuse nobody: they are swept first.

        Raises:
            RequestIdReused: the id is known with another fingerprint.
            UnknownSku, InsufficientStock: of the first such line, in the order of the request.
        """
        work = partial(reserving.reserve, request, self._hold, self._clock)
        while True:
            try:
                return await self._database.write(work)
            except reserving.UnitsOverdue:
                await self.sweep()

    async def undo(self, request_id: str, attempt_id: str) -> bool:
        """Takes back one attempt, and with the last one the reservation; returns whether the reservation went."""
        return await self._database.write(partial(reserving.undo, request_id, attempt_id, self._clock))

    async def reservation(self, reservation_id: str) -> Reservation:
        """Reads a reservation.

        Raises:
            UnknownReservation: there is none of that id.
        """
        async with self._database.read() as connection:
            found = await reserving.find(connection, reservation_id)
        if found is None:
            raise UnknownReservation(reservation_id)
        return found.at(self._clock())

    async def commit(self, reservation_id: str, fingerprint: str = "") -> Reservation:
        """Takes the units out of the warehouse, once. With a fingerprint, another one's reservation is unknown.

        Raises:
            UnknownReservation, ReservationReleased, ReservationExpired: there is nothing to commit.
        """
        work = partial(reserving.settle, reservation_id, fingerprint, State.COMMITTED, self._clock)
        return await self._database.write(work)

    async def release(self, reservation_id: str, fingerprint: str = "") -> Reservation:
        """Gives the units back, once. With a fingerprint, another one's reservation is unknown.

        Raises:
            UnknownReservation, ReservationCommitted, ReservationExpired: there is nothing to give back.
        """
        work = partial(reserving.settle, reservation_id, fingerprint, State.RELEASED, self._clock)
        return await self._database.write(work)

    async def sweep(self) -> int:
        """Gives back the units of some expired reservations, and returns their number, 0 when none is left.

        Takes no lock when nothing is due.
        """
        now = self._clock()
        async with self._database.read() as connection:
            due = await connection.scalar(reserving.due(now, limit=1))
        if due is None:
            return 0
        return await self._database.write(partial(reserving.sweep, now, self._tracer))


async def _adjust(adjustment: Adjustment, connection: AsyncConnection) -> Stock:
    sku, delta = adjustment.sku, adjustment.delta
    if not await insert_once(connection, adjustments, request_id=adjustment.request_id, sku=sku, delta=delta):
        return await _adjusted_before(adjustment, connection)
    change = (
        update(stock)
        .where(stock.c.sku == sku, stock.c.on_hand + delta >= stock.c.reserved)
        .values(on_hand=stock.c.on_hand + delta, version=stock.c.version + 1)
        .returning(stock)
    )
    if row := (await connection.execute(change)).one_or_none():
        return _stock(row)
    raise AdjustmentBelowReserved(await _known_stock(sku, connection), delta)


async def _adjusted_before(adjustment: Adjustment, connection: AsyncConnection) -> Stock:
    known = select(adjustments).where(adjustments.c.request_id == adjustment.request_id)
    row = (await connection.execute(known)).one()
    if (row.sku, row.delta) != (adjustment.sku, adjustment.delta):
        raise RequestIdReused(adjustment.request_id)
    return await _known_stock(adjustment.sku, connection)


async def _known_stock(sku: str, connection: AsyncConnection) -> Stock:
    row = (await connection.execute(select(stock).where(stock.c.sku == sku))).one_or_none()
    if row is None:
        raise UnknownSku(sku)
    return _stock(row)


def _stock(row: Row[tuple[object, ...]]) -> Stock:
    return Stock(**row._asdict())
