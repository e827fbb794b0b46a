"""Two empty databases for a module of tests: SQLite files, or databases of the PostgreSQL server of the tests."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest


@asynccontextmanager
async def two_databases(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[list[str]]:
    """The URLs for inventory and pricing; `request.param` is `sqlite` or `postgresql`."""
    if request.param == "sqlite":
        yield [f"sqlite:///{folder / name}.db" for name in ("inventory", "pricing")]
        return
    server = make_url(request.getfixturevalue("postgres_url"))
    names = [f"test_{uuid.uuid4().hex}" for _ in range(2)]
    engine = create_async_engine(server.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for name in names:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        yield [server.set(database=name).render_as_string(hide_password=False) for name in names]
        for name in names:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await engine.dispose()
