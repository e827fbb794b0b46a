"""Inventory's database and store, without the service."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from inventory.app import MIGRATIONS
from inventory.domain import DatabaseUnavailable
from inventory.seed import seed
from inventory.store import InventoryStore
from meshkit.database import check_database, open_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

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
