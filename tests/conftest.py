"""Fixtures and checks for every test: forbidden skips, blocking calls in the event loop, and databases.

A test that needs a database gets a SQLite file or a PostgreSQL database of its own.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import blockbuster_ctx
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped] # it ships no types

from tests.private_postgres import PrivatePostgres, empty_databases
from tests.repository import SOURCES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator


# gRPC sends even these to the shell's proxy, and reads only lower case.
os.environ["no_grpc_proxy"] = "127.0.0.1,localhost,[::1],::1"  # noqa: SIM112

pytest_plugins = ("tests.isolation", "tests.time_limit")

OURS = tuple(SOURCES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With AIOMESH_FORBID_SKIPS=1, a skipped test fails.

    No garbage is collected while the report is made. pytest parses the source of each frame for it, and a parser of
    Python 3.11 within which a finalizer parses, too, raises SystemError: "AST constructor recursion depth mismatch".
    asyncio's finalizer of a task with an error that nobody retrieved does, as its log shows the traceback.
    """
    gc.disable()
    try:
        report = yield
    finally:
        gc.enable()
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("AIOMESH_FORBID_SKIPS") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, and skips are forbidden: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """Two processes more than cores, because a third of the time a test waits for another process or a timer.

    `-n logical`, for tests that seldom wait, has no more than cores: each process has to collect all tests first.
    """
    cores = yield
    return cores if config.option.numprocesses == "logical" else cores + 2


class ByFile(LoadFileScheduling):  # type: ignore[misc] # for the same reason
    """Gives all tests of a file to one process, and so all files that use the mesh of tests/e2e/conftest.py."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/e2e" if file.startswith("tests/e2e/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Distributes the tests."""
    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects without the garbage collector, which afterwards ignores the modules and the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files whose tests may take longest, then those with most tests, so that all processes end soon.

    Within a file the order stays random.
    """
    limits, sizes = Counter[Path](), Counter[Path](item.path for item in items)
    for item in items:
        limit = item.get_closest_marker("timeout")
        limits[item.path] = max(limits[item.path], limit.args[0] if limit else 0)
    items.sort(key=lambda item: (limits[item.path], sizes[item.path]), reverse=True)


@pytest.fixture(scope="session", autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Makes a blocking call of our code in any event loop raise an error."""
    with blockbuster_ctx([*OURS]) as detector:
        detector.functions[
            "os.path.abspath"
        ].deactivate()  # does not read the disk; SQLAlchemy calls it for each SQLite file
        detector.functions["threading.Lock.acquire"].deactivate()  # grpc.aio joins a thread when it is collected
        for function in detector.functions.values():
            function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")  # it reads ~/.pgpass
            function.can_block_in("meshkit/database/sqlite_file.py", ("verify", "_identity"))  # a few microseconds
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
    async with empty_databases(postgres_url, 1) as (url,):
        yield url


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
