"""meshkit.database.sqlite_writer on a real file."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import NoOpTracer
from sqlalchemy import make_url, text

from meshkit.database import sqlite_writer
from meshkit.database.pools import Usage
from meshkit.database.sqlite import sqlite_engine
from meshkit.database.sqlite_file import SqliteFile
from meshkit.database.sqlite_writer import SqliteWriter
from meshkit.database.tracing import StatementSpans
from tests.databases import Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection

PATIENCE = 0.3
"""Seconds, which are short so that the test of a time-out is."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a table of numbers."""
    path = tmp_path / "numbers.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER)")
    return path


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[SqliteWriter]:
    file = SqliteFile(str(path))
    engine = sqlite_engine(make_url(f"sqlite:///{path}"), file)
    writer = SqliteWriter(engine, StatementSpans(engine, NoOpTracer()), file.verify, PATIENCE)
    await writer.enable_wal()
    yield writer
    await writer.close()


def numbers(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n")]


def insert(connection: Connection, *new: int) -> None:
    for n in new:
        connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": n})


async def until_it_waits(writer: SqliteWriter) -> None:
    while not writer.usage().pending:
        await asyncio.sleep(0)


async def test_a_transaction_of_many_statements_wakes_the_event_loop_once(
    writer: SqliteWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, wake_ups = asyncio.get_running_loop(), 0
    wake_up = loop.call_soon_threadsafe

    def count(*arguments: Any, **named: Any) -> asyncio.Handle:
        nonlocal wake_ups
        wake_ups += 1
        return wake_up(*arguments, **named)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    await writer.write(lambda connection: insert(connection, 1, 2, 3), 60)
    assert wake_ups == 1
    assert await asyncio.to_thread(numbers, path) == [1, 2, 3]


async def test_writers_take_their_turns_in_the_order_of_their_calls(writer: SqliteWriter) -> None:
    hold, order = Hold(), list[int]()
    held = asyncio.create_task(writer.write(hold, 60))
    await hold.begun.wait()
    waiting = [asyncio.create_task(writer.write(lambda _, n=n: order.append(n), 60)) for n in range(9)]  # type: ignore[misc]
    await until_it_waits(writer)
    hold.let_go.set()
    await asyncio.gather(held, *waiting)
    assert order == list(range(9))


async def test_a_transaction_that_has_begun_may_take_longer_than_the_patience(writer: SqliteWriter) -> None:
    hold = Hold()
    held = asyncio.create_task(writer.write(hold, 60))
    await hold.begun.wait()
    with pytest.raises(TimeoutError):
        await writer.write(insert, 60)
    hold.let_go.set()
    await held


async def test_a_blocked_write_is_left_keeps_its_turn_and_is_never_committed(
    writer: SqliteWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that does not respond, which no interrupt ends."""
    monkeypatch.setattr(sqlite_writer, "INTERRUPTS", 2)
    hold = Hold()

    def write(connection: Connection) -> None:
        insert(connection, 1)
        hold(connection)

    blocked = asyncio.create_task(writer.write(write, 0))
    await hold.begun.wait()
    blocked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await blocked
    assert writer.usage() == Usage(idle=0, used=1, most=1, pending=0)
    with pytest.raises(TimeoutError):
        await writer.write(lambda connection: insert(connection, 2), 60)
    later = asyncio.create_task(writer.write(lambda connection: insert(connection, 3), 60))
    await until_it_waits(writer)
    hold.let_go.set()
    await later
    assert await asyncio.to_thread(numbers, path) == [3]


async def test_a_connection_that_is_closed_is_replaced(writer: SqliteWriter, path: Path) -> None:
    def fail(connection: Connection) -> None:
        insert(connection, 1)
        connection.invalidate()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await writer.write(fail, 60)
    await writer.write(lambda connection: insert(connection, 2), 60)
    assert await asyncio.to_thread(numbers, path) == [2]


async def test_close_ends_the_thread(path: Path) -> None:
    file = SqliteFile(str(path))
    engine = sqlite_engine(make_url(f"sqlite:///{path}"), file)
    writer = SqliteWriter(engine, StatementSpans(engine, NoOpTracer()), file.verify, 5)
    await writer.write(lambda connection: insert(connection, 1), 60)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("sqlite-writer")]
    await writer.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sqlite-writer")]
