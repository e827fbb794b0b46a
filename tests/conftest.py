"""Databases for tests: a SQLite file or a PostgreSQL database of its own for each test."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest
from private_postgres import PrivatePostgres
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
async def postgres_database(postgres_url: str) -> AsyncIterator[str]:
    """An empty PostgreSQL database that is dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    server = make_url(postgres_url)
    engine = create_async_engine(server.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
        yield server.set(database=name).render_as_string(hide_password=False)
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await engine.dispose()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server: the one of AIOMESH_TEST_POSTGRES_URL, or a private one that ends with the tests."""
    if url := os.environ.get("AIOMESH_TEST_POSTGRES_URL"):
        yield url
        return
    with PrivatePostgres().running() as url:
        yield url
