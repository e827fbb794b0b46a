"""Fixtures and checks for every test: forbidden skips, blocking calls in the event loop, and databases.

A test that needs a database gets a SQLite file or a PostgreSQL database of its own.
"""

from __future__ import annotations

import os
import shutil
import uuid
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.private_postgres import PrivatePostgres
from tests.repository import SOURCES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from pathlib import Path


pytest_plugins = ("tests.isolation", "tests.time_limit")

OURS = tuple(SOURCES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With AIOMESH_FORBID_SKIPS=1, a skipped test fails."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("AIOMESH_FORBID_SKIPS") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, and skips are forbidden: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Makes a blocking call of our code in the event loop raise an error."""
    with blockbuster_ctx([*OURS]) as detector:
        detector.functions[
            "os.path.abspath"
        ].deactivate()  # does not read the disk; SQLAlchemy calls it for each SQLite file
        detector.functions["threading.Lock.acquire"].deactivate()  # grpc.aio joins a thread when it is collected
        for function in detector.functions.values():
            function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")  # it reads ~/.pgpass
            function.can_block_in("tests/time_limit.py", "expire")
        yield


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
    """The URL of a PostgreSQL server: AIOMESH_TEST_POSTGRES_URL, or a private one that stops after the tests."""
    if url := os.environ.get("AIOMESH_TEST_POSTGRES_URL"):
        yield url
        return
    with PrivatePostgres().running() as url:
        yield url


@pytest.fixture(scope="session")
def jaeger_bin() -> str:
    """The program of the real Jaeger v2."""
    found = os.environ.get("JAEGER_BIN") or shutil.which("jaeger")
    if not found:
        pytest.skip("needs Jaeger v2: set JAEGER_BIN to its program, or put `jaeger` on the PATH")
    return found
