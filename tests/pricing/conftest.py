"""Pricing's store on a database of each kind, with a clock that tests set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from meshkit.testing import FakeClock, SpanCapture
from tests.pricing.opened import prepare_database, store_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshkit.database.database import Database
    from pricing.store import PriceStore

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def capture() -> SpanCapture:
    return SpanCapture("pricing")


@pytest.fixture
async def database(database_url: str, capture: SpanCapture) -> AsyncIterator[Database]:
    async with prepare_database(database_url, capture) as database:
        yield database


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def store(database: Database, clock: FakeClock, capture: SpanCapture) -> PriceStore:
    return store_on(database, capture, clock)
