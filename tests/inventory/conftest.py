"""A store on a new database, SQLite or PostgreSQL, with a clock that tests set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meshkit.testing import FakeClock, SpanCapture
from tests.inventory.opened import prepare_database, store_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inventory.store import InventoryStore
    from meshkit.database import Database


@pytest.fixture
def capture() -> SpanCapture:
    return SpanCapture("inventory")


@pytest.fixture
async def database(database_url: str, capture: SpanCapture) -> AsyncIterator[Database]:
    async with prepare_database(database_url, capture) as database:
        yield database


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(database: Database, clock: FakeClock, capture: SpanCapture) -> InventoryStore:
    return store_on(database, capture, clock)
