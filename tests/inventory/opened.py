"""Inventory's database and store, without the service, and requests for it."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from inventory import tables
from inventory.app import MIGRATIONS
from inventory.domain import DatabaseUnavailable, Line, ReservationRequest
from inventory.seed import seed
from inventory.store import InventoryStore
from meshkit.database import check_database, open_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from inventory.domain import Stock
    from meshkit.database import Database
    from meshkit.testing import SpanCapture

HOLD = timedelta(minutes=15)
PATIENCE = 60.0  # for a hundred concurrent calls on a busy machine


@asynccontextmanager
async def prepare_database(url: str, capture: SpanCapture) -> AsyncIterator[Database]:
    """Opens a database, migrates and seeds it."""
    telemetry = capture.telemetry
    tracer = telemetry.tracer_provider.get_tracer("inventory")
    async with open_database(url, DatabaseUnavailable, tracer, telemetry.meter, patience=PATIENCE) as database:
        await check_database(database, MIGRATIONS, seed)
        yield database


def store_on(database: Database, capture: SpanCapture, clock: Callable[[], datetime]) -> InventoryStore:
    """A store whose reservations last for HOLD."""
    return InventoryStore(database, clock, HOLD, capture.telemetry.tracer_provider.get_tracer("inventory"))


def request_for(*lines: tuple[str, int], fingerprint: str = "digest") -> ReservationRequest:
    return ReservationRequest(new_id(), new_id(), tuple(Line(*line) for line in lines), fingerprint)


def another_attempt(request: ReservationRequest) -> ReservationRequest:
    return replace(request, attempt_id=new_id())


def new_id() -> str:
    return str(uuid.uuid4())


async def stock_of(store: InventoryStore, sku: str) -> Stock:
    return (await store.stocks([sku]))[sku]


async def count(database: Database, table: str) -> int:
    async with database.read() as connection:
        rows = await connection.scalar(select(func.count()).select_from(tables.metadata.tables[table]))
        return rows or 0
