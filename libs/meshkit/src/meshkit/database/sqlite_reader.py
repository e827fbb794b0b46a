"""Reads a SQLite file in threads: reads that wait go to a thread together, and come back together.

One thread at a time is on duty. It takes all reads that wait, runs one after the other, and wakes the event loop once
with all their rows, because a wake-up costs more than most statements. A statement that takes long (a large page, a
slow disk) must not delay the reads behind it, so every STUCK_SECONDS the event loop looks whether the thread is still
at the same statement. Then another thread, with a connection of its own, takes over what waits.

A statement is interrupted when its caller is cancelled (https://www.sqlite.org/c3ref/interrupt.html). An interrupt that
comes late hits the next statement on the same connection, which is then run again.

Only the event loop decides which thread is on duty. What it shares with the threads are two deques, whose methods are
atomic.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from time import time_ns
from typing import TYPE_CHECKING, Any

from meshkit.database.pools import Usage
from meshkit.database.tracing import is_traced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshkit.database.reads import Read
    from meshkit.database.tracing import StatementSpans

    Rows = Sequence[tuple[Any, ...]]

THREADS = 4
"""The most threads, by default."""

STUCK_SECONDS = 0.02
"""Seconds between two looks at the thread on duty."""


class SqliteReader:
    """Threads that read one file. The caller closes it.

    Args:
        connect: opens a connection, in the thread that uses it.
        spans: records the statements.
        most: the most threads, each with a connection.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], spans: StatementSpans, most: int = THREADS) -> None:
        self._connect = connect
        self._spans = spans
        self._most = most
        self._waiting: deque[_Job] = deque()
        self._ready: deque[_Job] = deque()
        self._threads: list[_Thread] = []
        self._idle: list[_Thread] = []
        self._on_duty: _Thread | None = None
        self._seen: _Job | None = None
        self._next_look: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def fetch(self, read: Read, patience: float) -> Rows:
        """See Reader."""
        if self._is_closed:
            raise ConnectionError("the database is closed")
        loop = asyncio.get_running_loop()
        job = _Job(read, loop.create_future(), is_traced=is_traced())
        limit = loop.call_later(patience, job.give_up)
        self._waiting.append(job)
        self._assign(loop)
        try:
            rows = await job.rows
        except BaseException as error:
            job.abandon()
            self._record(job, error)
            raise
        finally:
            limit.cancel()
        self._record(job)
        return rows

    async def close(self) -> None:
        """Ends the reads in flight with a ConnectionError, and all threads with their connections."""
        self._is_closed = True
        for job in (*self._waiting, *(thread.job for thread in self._threads)):
            if job:
                job.fail(ConnectionError("the database is closed"))
        self._waiting.clear()
        for thread in self._threads:
            thread.end()
        await asyncio.gather(*(thread.ended() for thread in self._threads))
        if self._next_look:
            self._next_look.cancel()

    def usage(self) -> Usage:
        """The connections, and the reads that wait for one."""
        idle = len(self._idle)
        pending = sum(not job.is_abandoned for job in tuple(self._waiting))
        return Usage(idle=idle, used=len(self._threads) - idle, most=self._most, pending=pending)

    def _assign(self, loop: asyncio.AbstractEventLoop) -> None:
        """Puts a thread on duty if reads wait, none is on duty, and one is free or may be started."""
        if not self._waiting or self._on_duty or len(self._threads) - len(self._idle) == self._most:
            return
        if not self._idle:
            self._start_thread(loop)
        self._on_duty = self._idle.pop()
        self._on_duty.begin_turn()
        if not self._next_look:
            self._next_look = loop.call_later(STUCK_SECONDS, self._look, loop)

    def _start_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        def on_turn_end() -> None:
            self._end_turn(thread, loop)

        thread = _Thread(self._connect, self._waiting, self._ready, on_turn_end, loop)
        self._threads.append(thread)
        self._idle.append(thread)

    def _end_turn(self, thread: _Thread, loop: asyncio.AbstractEventLoop) -> None:
        self._hand_out()
        self._idle.append(thread)
        if thread is self._on_duty:
            self._on_duty = None
        self._assign(loop)

    def _hand_out(self) -> None:
        while self._ready:
            self._ready.popleft().resolve()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hands out the rows before a long statement, and relieves the thread if it is still at the same one."""
        self._hand_out()
        job = self._on_duty.job if self._on_duty else None
        if self._on_duty and job and job is self._seen:
            self._on_duty.is_on_duty = False
            self._on_duty = None
            self._assign(loop)
        self._seen = job
        for thread in self._threads:
            thread.interrupt_if_abandoned()  # again, because the first time may have been before the statement began
        is_busy = len(self._idle) < len(self._threads)
        self._next_look = loop.call_later(STUCK_SECONDS, self._look, loop) if is_busy else None

    def _record(self, job: _Job, error: BaseException | None = None) -> None:
        if job.is_traced and job.begin_time:
            self._spans.record(job.read.description, job.begin_time, job.end_time or time_ns(), error)


class _Job:
    """One read and its outcome. Times are nanoseconds since 1970; 0 until known."""

    __slots__ = ("_error", "_found", "_thread", "begin_time", "end_time", "is_abandoned", "is_traced", "read", "rows")

    def __init__(self, read: Read, rows: asyncio.Future[Rows], *, is_traced: bool) -> None:
        self.read = read
        self.rows = rows
        self.is_traced = is_traced
        self.is_abandoned = False
        self.begin_time = 0
        self.end_time = 0
        self._thread: _Thread | None = None
        self._found: Rows = ()
        self._error: Exception | None = None

    def run(self, thread: _Thread) -> None:
        """Runs the statement, in a thread, unless nobody waits for it any more."""
        self._thread = thread
        try:
            self._execute(thread.connect())
        except Exception as error:  # noqa: BLE001 - resolve() passes it on
            self._error = error
        self.end_time = time_ns()

    def _execute(self, connection: sqlite3.Connection) -> None:
        while not self.is_abandoned:
            self.begin_time = self.begin_time or time_ns()
            try:
                self._found = connection.execute(self.read.text, self.read.arguments).fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_INTERRUPT":
                    raise
            else:
                return

    def resolve(self) -> None:
        """Passes the outcome to the caller, in the event loop."""
        if self.rows.done():
            return
        if self._error:
            self.rows.set_exception(self._error)
        else:
            self.rows.set_result(self._found)

    def give_up(self) -> None:
        """Ends a read that has not begun."""
        if not self.begin_time:
            self.fail(TimeoutError())

    def fail(self, error: Exception) -> None:
        """Ends the read with an error."""
        if not self.rows.done():
            self.rows.set_exception(error)
        self.abandon()

    def abandon(self) -> None:
        """Skips or interrupts the statement, because nobody waits for its rows."""
        self.is_abandoned = True
        if self._thread and not self.end_time:
            self._thread.interrupt_if_abandoned()


class _Thread:
    """A thread and its connection.

    Attributes:
        job: what it runs now.
        is_on_duty: whether it may take another job.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        waiting: deque[_Job],
        ready: deque[_Job],
        on_turn_end: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.job: _Job | None = None
        self.is_on_duty = False
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._waiting = waiting
        self._ready = ready
        self._on_turn_end = on_turn_end
        self._loop = loop
        self._turns: SimpleQueue[bool] = SimpleQueue()
        self._is_closed = loop.create_future()
        self._thread = Thread(target=self._run, name="sqlite-reader", daemon=True)
        self._thread.start()

    def begin_turn(self) -> None:
        """Goes on duty."""
        self.is_on_duty = True
        self._turns.put(True)

    def end(self) -> None:
        """Ends after the turn."""
        self._turns.put(False)

    async def ended(self) -> None:
        """Waits until the connection is closed and the thread is over."""
        await self._is_closed
        self._thread.join()  # nothing is left that it does

    def connect(self) -> sqlite3.Connection:
        """Its connection, in the thread."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def interrupt_if_abandoned(self) -> None:
        """Interrupts what it runs now if nobody waits for it; called in the event loop."""
        job, connection = self.job, self._connection
        if job and job.is_abandoned and connection:
            with suppress(sqlite3.ProgrammingError):  # the thread ends and has just closed it
                connection.interrupt()

    def _run(self) -> None:
        while self._turns.get():
            self._take_turn()
            self._loop.call_soon_threadsafe(self._on_turn_end)
        if self._connection:
            self._connection.close()
        self._loop.call_soon_threadsafe(self._is_closed.set_result, None)

    def _take_turn(self) -> None:
        """Runs what waits now, until another thread is on duty. It may take the last one first."""
        for _ in range(len(self._waiting)):
            try:
                self.job = self._waiting.popleft()
            except IndexError:
                break
            self.job.run(self)
            self._ready.append(self.job)
            if not self.is_on_duty:
                break
        self.job = None
