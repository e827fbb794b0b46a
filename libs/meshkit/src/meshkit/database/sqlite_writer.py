"""Writes a SQLite file in a thread: a transaction is one visit to it, from BEGIN IMMEDIATE to COMMIT.

A wake-up of a thread costs more than most statements. SQLite admits one writer at a time, so the writers of this
process queue in the event loop for one connection and its thread, first come, first served. While another process has
the lock, a visit ends at once and the event loop tries again a little later. So a lock blocks no thread, and a
cancellation ends the wait.

A write that must end early is interrupted (https://www.sqlite.org/c3ref/interrupt.html). That ends only the statement
that runs at this moment, so it is repeated, and the write is not committed. If the thread is blocked even so, as by a
disk that does not respond, its caller leaves. The turn ends with the visit: other writers wait as long as their
patience.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from meshkit.database.pools import Usage
from meshkit.database.transactions import finish, transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy import Connection, Engine

    from meshkit.database.tracing import StatementSpans

T = TypeVar("T")

POLL_SECONDS = 0.002
"""Seconds between two attempts to take a lock that another process has."""

INTERRUPT_SECONDS = 0.02
"""Seconds between two interrupts of a write that must end."""

INTERRUPTS = 50
"""The number of interrupts after which the caller leaves the write to its thread."""


class SqliteWriter:
    """One connection and its thread. The caller closes it.

    Args:
        engine: connects; its statements do not wait for locks.
        spans: those of the engine.
        verify: raises OSError unless the connection is to the file that now has its name.
        patience: seconds that a write waits for its turn, the connection and the lock.
    """

    def __init__(self, engine: Engine, spans: StatementSpans, verify: Callable[[], None], patience: float) -> None:
        self._engine = engine
        self._spans = spans
        self._verify = verify
        self._patience = patience
        self._begin = self._spans.describe("BEGIN IMMEDIATE")
        self._turn = asyncio.Lock()
        self._pending = 0
        self._thread = ThreadPoolExecutor(1, "sqlite-writer")
        self._link: _Link | None = None
        self._visit: asyncio.Future[Any] | None = None
        self._is_stopped = False

    async def write(self, work: Callable[[Connection], T], finish_seconds: float) -> T:
        """See Backend."""
        async with self._own_turn() as patience:
            with ExitStack() as begin:
                begin.enter_context(self._spans.span(self._begin))
                return await self._run(partial(self._transact, work, begin.close), patience, finish_seconds)

    async def look(self, work: Callable[[Connection], T]) -> T:
        """See Backend. Waits for its turn, but for no lock."""
        async with self._own_turn() as patience:
            return await self._run(lambda: work(self._connect().connection), patience)

    async def enable_wal(self) -> None:
        """Sets the file to WAL mode, permanently, as soon as no other process locks it. Raises as `write`."""
        async with self._own_turn() as patience:
            await self._run(partial(self._lock, "PRAGMA journal_mode=WAL"), patience)

    def usage(self) -> Usage:
        """The connection, and the writes that wait for it."""
        used = self._turn.locked()
        return Usage(idle=int(self._link is not None and not used), used=int(used), most=1, pending=self._pending)

    async def close(self) -> None:
        """Closes the connection and ends the thread. No write may be in flight."""
        await self._in_thread(self._disconnect)
        self._thread.shutdown()

    @asynccontextmanager
    async def _own_turn(self) -> AsyncIterator[asyncio.Timeout]:
        """A turn at the connection, which ends with its last visit. Yields the time-out of its patience."""
        async with asyncio.timeout(self._patience) as patience:
            self._pending += 1
            try:
                await self._turn.acquire()
            finally:
                self._pending -= 1
            try:
                if self._link is None or self._link.connection.invalidated:
                    await self._in_thread(self._connect)
                yield patience
            finally:
                self._end_turn()

    def _end_turn(self) -> None:
        if self._visit is None or self._visit.done():
            self._turn.release()
        else:
            self._visit.add_done_callback(self._end_left_turn)

    def _end_left_turn(self, visit: asyncio.Future[Any]) -> None:
        visit.exception()  # otherwise asyncio logs that nobody has asked for it
        self._turn.release()

    async def _run(self, visit: Callable[[], T], patience: asyncio.Timeout, finish_seconds: float = 0.0) -> T:
        """The result of a visit, once no other process has the lock."""
        end = patience.when()
        while True:
            patience.reschedule(None)
            self._is_stopped = False
            self._visit = running = self._in_thread(visit)
            try:
                return await finish(running, finish_seconds, self._stop)
            except _LockedError:
                patience.reschedule(end)
            await asyncio.sleep(POLL_SECONDS)

    async def _stop(self, visit: asyncio.Future[T]) -> None:
        self._is_stopped = True
        for _ in range(INTERRUPTS):
            self._interrupt()
            await asyncio.wait({visit}, timeout=INTERRUPT_SECONDS)
            if visit.done():
                return

    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Runs a function in the thread, in the caller's context, so that its spans are the caller's."""
        return asyncio.get_running_loop().run_in_executor(self._thread, copy_context().run, function)

    def _interrupt(self) -> None:
        if self._link:
            with suppress(sqlite3.ProgrammingError):  # the thread has just closed it
                self._link.driver.interrupt()

    def _connect(self) -> _Link:
        if self._link is None or self._link.connection.invalidated:
            connection = self._engine.connect()
            self._link = _Link(connection, cast("sqlite3.Connection", connection.connection.driver_connection))
        return self._link

    def _disconnect(self) -> None:
        if self._link:
            self._link.connection.close()

    def _transact(self, work: Callable[[Connection], T], on_begin: Callable[[], None]) -> T:
        self._lock("BEGIN IMMEDIATE")
        on_begin()
        connection = self._connect().connection
        with transaction(connection):
            self._verify()
            result = work(connection)
            if self._is_stopped:
                raise TimeoutError("it has not finished in time")
            return result

    def _lock(self, statement: str) -> None:
        """Runs a statement that takes a lock.

        Raises:
            _LockedError: another process has it.
        """
        try:
            self._connect().driver.execute(statement).close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith("SQLITE_BUSY"):
                raise _LockedError("another process has the lock") from error
            raise


class _Link(NamedTuple):
    """A connection, and the one of the driver that it uses."""

    connection: Connection
    driver: sqlite3.Connection


class _LockedError(Exception):
    """Another process has the lock."""
