"""A store on SQLite or PostgreSQL, on a database that a module's tests share, with a clock that tests set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from inventory.tables import metadata
from meshkit.testing import FakeClock, SpanCapture
from tests.databases import Seeded, new_databases
from tests.inventory.opened import prepare_database, store_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inventory.store import InventoryStore
    from meshkit.database import Database


settings.register_profile("slow machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("slow machine")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def shared_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with new_databases(request, tmp_path_factory.mktemp("inventory"), 1) as (url,):
        yield url


@pytest.fixture(scope="module")
def capture() -> SpanCapture:
    return SpanCapture("inventory")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeded(shared_url: str, capture: SpanCapture) -> AsyncIterator[Seeded]:
    async with prepare_database(shared_url, capture) as database:
        yield await Seeded.read(database, metadata)


@pytest_asyncio.fixture(loop_scope="module")
async def database(seeded: Seeded, capture: SpanCapture) -> Database:
    """The shared database as its seeds left it."""
    await seeded.restore()
    capture.exporter.clear()
    return seeded.database


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(database: Database, clock: FakeClock, capture: SpanCapture) -> InventoryStore:
    return store_on(database, capture, clock)
