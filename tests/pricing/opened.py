"""Pricing's database, without the service."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from meshkit.database import check_database, open_database
from pricing.app import MIGRATIONS
from pricing.domain import DatabaseUnavailable
from pricing.seed import seed
from pricing.store import PriceStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from meshkit.database import Database
    from meshkit.testing import SpanCapture

PATIENCE = 60.0  # for a hundred concurrent calls on a busy machine


@asynccontextmanager
async def prepare_database(url: str, capture: SpanCapture) -> AsyncIterator[Database]:
    """Opens a database, migrates and seeds it."""
    telemetry = capture.telemetry
    tracer = telemetry.tracer_provider.get_tracer("pricing")
    async with open_database(url, DatabaseUnavailable, tracer, telemetry.meter, patience=PATIENCE) as database:
        await check_database(database, MIGRATIONS, seed)
        yield database


def store_on(database: Database, capture: SpanCapture, clock: Callable[[], datetime]) -> PriceStore:
    """A store with the tracer of a capture."""
    return PriceStore(database, clock, capture.telemetry.tracer_provider.get_tracer("pricing"))
