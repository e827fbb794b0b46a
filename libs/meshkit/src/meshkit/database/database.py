"""The database of one service: SQLite or PostgreSQL behind one small interface.

Theory of operation. The drivers are in autocommit mode, and this module sends BEGIN, COMMIT and ROLLBACK itself:

- `read()` has no transaction. Each statement sees one moment; read data that must be consistent in one statement.
  Readers have their own connections, so they never queue behind writers that wait for a lock.
- `write(work)` is one transaction. On SQLite it starts with BEGIN IMMEDIATE, because a transaction that reads first and
  locks later sells the same unit twice or fails half-way. SQLite admits one writer at a time, and the others must
  poll. So the writers of this process queue in the event loop, first come, first served, and the first one polls
  against other processes every few milliseconds. No writer blocks a thread, and a cancellation, such as the deadline
  of an RPC, ends the wait at once.
- A write that has started finishes. A cancelled caller waits for it (up to FINISH_SECONDS, then it is rolled back), so
  a transaction is atomic and its connection returns to the pool clean.

A commit survives the death of every process, even by SIGKILL (see `meshkit.database.engines`).
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from opentelemetry.metrics import NoOpMeter
from sqlalchemy import text

from meshkit.database.engines import parse_url, postgresql_engine, sqlite_engine
from meshkit.database.locks import run_when_unlocked
from meshkit.database.migrations import known_revisions, load_scripts, migrate, stored_revision
from meshkit.database.outages import RETRY_AFTER, raise_unavailable
from meshkit.database.pools import Pools
from meshkit.database.tracing import StatementSpans
from meshkit.database.transactions import finish, transaction
from meshkit.deadline import remaining

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from meshkit.database.migrations import Seed
    from meshkit.errors import Unavailable

T = TypeVar("T")

FINISH_SECONDS = 2.0
"""Seconds that a write may take to finish after its caller is cancelled."""

MIGRATION_SECONDS = 600.0
"""The same for a migration, which must not restart again and again."""


class Database:
    """One database and its connections. The caller closes it.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host:port/name`; this class adds the asynchronous driver.
        unavailable: the service's error for a database that cannot be reached or stays locked. It replaces driver
            errors of that kind; all other driver errors are bugs and pass unchanged.
        tracer: creates a span for each statement of a traced request.
        meter: counts the connections of the pools, see `meshkit.database.pools`.
        patience: seconds that a call waits for a connection or the write lock, unless it is cancelled; a read waits
            for at most half of its budget.

    Raises:
        ValueError: the URL is neither a file on disk nor a PostgreSQL database.
    """

    def __init__(
        self,
        url: str,
        *,
        unavailable: type[Unavailable],
        tracer: Tracer,
        meter: Meter | None = None,
        patience: float = 5.0,
    ) -> None:
        self._url = parse_url(url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._unavailable = unavailable
        self._patience = patience
        self._prepared = False
        if self._sqlite:
            self._readers = sqlite_engine(self._url, connections=4, busy_seconds=1.0)
            self._writers = sqlite_engine(self._url, connections=1, busy_seconds=0.0)
            self._turn: AbstractAsyncContextManager[None] = asyncio.Lock()
        else:
            self._readers = postgresql_engine(self._url, connections=5, patience=patience)
            self._writers = postgresql_engine(self._url, connections=5, patience=patience)
            self._turn = nullcontext()
        StatementSpans(self._readers, tracer)
        self._spans = StatementSpans(self._writers, tracer)
        self._pools = Pools({"readers": self._readers, "writers": self._writers}, meter or NoOpMeter("meshkit"))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading, without a transaction.

        Raises:
            Unavailable: raised as the service's own class, also before `prepare` has succeeded.
        """
        self._require_prepared()
        with raise_unavailable(self._unavailable):
            async with self._connection(self._readers, patience=self._patience_to_read()) as connection:
                yield connection

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` in one write transaction: committed when it returns, rolled back when it raises.

        Raises:
            Unavailable: raised as the service's own class, also before `prepare` has succeeded. Nothing was changed,
                or (if the connection broke during COMMIT) the outcome is unknown, so make writes idempotent.
        """
        self._require_prepared()
        return await self._write(work, FINISH_SECONDS)

    async def prepare(self, migrations: Path, seed: Seed) -> None:
        """Migrates the schema to this release's revision; seeds a database without a schema.

        It is one write transaction, so several processes may start at once, and a process that dies leaves nothing
        half done. It takes no lock when the schema is current. Call it until it succeeds; later calls return at once.

        Args:
            migrations: a directory of Alembic revisions, see `meshkit.database.migrations`.
            seed: fills the new tables.

        Raises:
            Unavailable: raised as the service's own class; call again later.
            UnknownRevision: this release does not know the schema. Nothing was changed.
        """
        if self._prepared:
            return
        known = await asyncio.to_thread(known_revisions, migrations)
        with raise_unavailable(self._unavailable):
            if self._sqlite:
                await self._enable_wal()
            async with self._connection(self._readers) as connection:
                stored = await connection.run_sync(stored_revision, known)
        if stored != known[-1]:
            scripts = await asyncio.to_thread(load_scripts, migrations)
            await self._write(partial(migrate, known, scripts, seed), MIGRATION_SECONDS)
        self._prepared = True

    async def check(self) -> None:
        """Checks that the database responds.

        Raises:
            Unavailable: raised as the service's own class.
        """
        async with self.read() as connection:
            await connection.execute(text("SELECT version_num FROM alembic_version"))

    async def close(self) -> None:
        """Closes all connections. No call may be in flight."""
        await self._readers.dispose()
        await self._writers.dispose()

    def _require_prepared(self) -> None:
        if not self._prepared:
            raise self._unavailable("the database is not ready yet", retry_after=RETRY_AFTER)

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[T]], finish_seconds: float) -> T:
        with raise_unavailable(self._unavailable):
            async with (
                asyncio.timeout(self._patience) as patience,
                self._connection(self._writers, self._turn) as connection,
            ):
                await self._begin(connection)
                patience.reschedule(None)
                return await finish(transaction(connection, work), finish_seconds)

    async def _begin(self, connection: AsyncConnection) -> None:
        if not self._sqlite:
            await connection.exec_driver_sql("BEGIN")
            return
        with self._spans.span("BEGIN IMMEDIATE"):
            await run_when_unlocked(connection, "BEGIN IMMEDIATE")

    async def _enable_wal(self) -> None:
        """Sets the file to WAL mode, permanently. Retries while another process does the same and locks it."""
        async with asyncio.timeout(self._patience), self._connection(self._writers) as connection:
            await run_when_unlocked(connection, "PRAGMA journal_mode=WAL")

    @asynccontextmanager
    async def _connection(
        self,
        engine: AsyncEngine,
        turn: AbstractAsyncContextManager[None] | None = None,
        *,
        patience: float | None = None,
    ) -> AsyncIterator[AsyncConnection]:
        limit = self._patience if patience is None else patience
        async with asyncio.timeout(limit) as timeout, AsyncExitStack() as stack:
            with self._pools.count_waiter(engine):
                await stack.enter_async_context(turn or nullcontext())
                connection = await stack.enter_async_context(engine.connect())
            timeout.reschedule(None)
            yield connection

    def _patience_to_read(self) -> float:
        """At most half of the budget, so the caller gets the error in time to try another replica."""
        left = remaining()
        return self._patience if left is None else min(self._patience, left / 2)
