"""meshkit.database.sqlite_reader on a real file, with statements that last until the test lets them end."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import NoOpTracer
from sqlalchemy import create_engine

from meshkit.database.pools import Usage
from meshkit.database.reads import Read
from meshkit.database.sqlite_reader import THREADS, SqliteReader
from meshkit.database.tracing import StatementSpans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from meshkit.database.sqlite_reader import Rows

ENDLESS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT count(*) FROM numbers"
PATIENCE = 60.0


class Gate:
    """Connections to a file whose SQL function `hold()` returns 1 when the test has opened the gate."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = threading.Event()
        self._entered = threading.Semaphore(0)
        self.connections: list[sqlite3.Connection] = []
        self.noted: list[int] = []

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.create_function("hold", 0, self._hold)
        connection.create_function("note", 1, self.noted.append)
        self.connections.append(connection)
        return connection

    def open(self) -> None:
        self._opened.set()

    async def entered(self, count: int = 1) -> None:
        """Waits until as many more statements are held."""
        for _ in range(count):
            await asyncio.to_thread(self._entered.acquire)

    def _hold(self) -> int:
        self._entered.release()
        self._opened.wait()
        return 1


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "some.db")


@asynccontextmanager
async def reading(gate: Gate) -> AsyncIterator[SqliteReader]:
    reader = SqliteReader(gate.connect, StatementSpans(create_engine("sqlite://"), NoOpTracer()))
    try:
        yield reader
    finally:
        gate.open()
        await reader.close()


def fetch(reader: SqliteReader, text: str, *arguments: Any, patience: float = PATIENCE) -> Coroutine[Any, Any, Rows]:
    spans = StatementSpans(create_engine("sqlite://"), NoOpTracer())
    return reader.fetch(Read(text, arguments, spans.describe(text)), patience)


async def hold(reader: SqliteReader, gate: Gate) -> asyncio.Task[Rows]:
    """A read that a thread has begun."""
    task = asyncio.create_task(fetch(reader, "SELECT hold()"))
    await gate.entered()
    return task


async def test_all_reads_that_wait_come_back_in_one_wake_up(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(gate) as reader:
        held = await hold(reader, gate)
        waiting = [asyncio.create_task(fetch(reader, "SELECT ?", number)) for number in range(16)]
        await asyncio.sleep(0)
        loop, wake_ups = asyncio.get_running_loop(), 0
        wake_up = loop.call_soon_threadsafe

        def count(*arguments: Any) -> asyncio.Handle:
            nonlocal wake_ups
            wake_ups += 1
            return wake_up(*arguments)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        gate.open()
        assert await asyncio.gather(*waiting) == [[(number,)] for number in range(16)]
        assert await held == [(1,)]
        assert wake_ups == 2, "one of the held read, and one of all others"


async def test_a_long_read_delays_neither_the_reads_before_it_nor_those_behind_it(gate: Gate) -> None:
    async with reading(gate) as reader:
        before, held, behind = (
            asyncio.create_task(fetch(reader, text)) for text in ("SELECT 'before'", "SELECT hold()", "SELECT 'behind'")
        )
        assert await before == [("before",)]
        assert await behind == [("behind",)]
        assert await fetch(reader, "SELECT 'later'") == [("later",)]
        assert not held.done()


async def test_when_all_threads_are_held_a_read_waits_as_long_as_its_patience(gate: Gate) -> None:
    async with reading(gate) as reader:
        held = [await hold(reader, gate) for _ in range(THREADS)]
        with pytest.raises(TimeoutError):
            await fetch(reader, "SELECT note(1)", patience=0.05)
        last = asyncio.create_task(fetch(reader, "SELECT 'last'"))
        await asyncio.sleep(0)
        assert reader.usage() == Usage(idle=0, used=THREADS, most=THREADS, pending=1)
        gate.open()
        assert await asyncio.gather(*held) == [[(1,)]] * THREADS
        assert await last == [("last",)]
        assert gate.noted == []


async def test_the_statement_of_a_cancelled_read_is_interrupted(gate: Gate) -> None:
    async with reading(gate) as reader:
        endless = [
            asyncio.create_task(fetch(reader, f"SELECT 1 WHERE hold() = 1 AND ({ENDLESS})")) for _ in range(THREADS)
        ]
        await gate.entered(THREADS)
        gate.open()
        for task in endless:
            task.cancel()
        assert [type(error) for error in await asyncio.gather(*endless, return_exceptions=True)] == [
            asyncio.CancelledError
        ] * THREADS
        assert await fetch(reader, "SELECT 'next'") == [("next",)]


async def test_a_read_that_is_cancelled_while_it_waits_never_runs(gate: Gate) -> None:
    async with reading(gate) as reader:
        held = [await hold(reader, gate) for _ in range(THREADS)]
        waiting = asyncio.create_task(fetch(reader, "SELECT note(1)"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open()
        await asyncio.gather(*held)
        await fetch(reader, "SELECT note(2)")
        assert gate.noted == [2]


async def test_a_statement_that_a_late_interrupt_hits_is_run_again(gate: Gate) -> None:
    async with reading(gate) as reader:
        held = await hold(reader, gate)
        gate.connections[0].interrupt()
        gate.open()
        assert await held == [(1,)]
        await gate.entered()  # the second time


async def test_close_ends_reads_that_run_and_reads_that_wait_and_their_threads(gate: Gate) -> None:
    async with reading(gate) as reader:
        endless = [
            asyncio.create_task(fetch(reader, f"SELECT 1 WHERE hold() = 1 AND ({ENDLESS})")) for _ in range(THREADS)
        ]
        endless += [asyncio.create_task(fetch(reader, ENDLESS)) for _ in range(20)]
        await gate.entered(THREADS)
        gate.open()
        await reader.close()
        outcomes = await asyncio.gather(*endless, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ConnectionError}
        assert not [thread for thread in threading.enumerate() if thread.name == "sqlite-reader"]
        with pytest.raises(ConnectionError):
            await fetch(reader, "SELECT 1")
