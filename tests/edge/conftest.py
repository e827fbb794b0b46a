"""The backends of a storefront, which the tests of a module share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.databases import new_databases
from tests.edge.backends import Backends, backends

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def shared_mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backends]:
    """Both backends, on SQLite or PostgreSQL."""
    async with new_databases(request, tmp_path_factory.mktemp("orders"), 2) as urls, backends(*urls) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(shared_mesh: Backends) -> Backends:
    """The shared backends with the rows of their seeds."""
    await shared_mesh.restore()
    return shared_mesh
