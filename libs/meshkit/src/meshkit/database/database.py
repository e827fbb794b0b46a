"""The database of one service: SQLite or PostgreSQL behind the same few calls.

Theory of operation. The drivers are in autocommit mode, and this module says BEGIN, COMMIT and ROLLBACK itself:

- `read()` has no transaction. Each statement sees one moment; what must be of one moment is one statement. Readers have
  connections of their own, so that none waits behind writers who wait for a lock.
- `write(work)` is one transaction. On SQLite it begins with BEGIN IMMEDIATE, for a transaction that reads first and
  locks later sells the same unit twice or fails half-way. SQLite lets one writer in at a time and lets the others
  poll: so the writers of this process queue in the event loop, first come first served, and their first one polls
  against other processes every few milliseconds. Nobody blocks a thread, and a cancellation, such as the deadline of
  an RPC brings, ends the wait at once.
- A write that has begun finishes. A cancelled caller waits for it (for FINISH_SECONDS, then it is rolled back), so a
  transaction is committed whole or not at all and its connection goes back clean.

What is committed survives the death of every process, by SIGKILL too (see `meshkit.database.engines`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from opentelemetry.metrics import NoOpMeter
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from meshkit.database.engines import checked_url, postgresql_engine, sqlite_engine
from meshkit.database.migrations import known_revisions, load_scripts, stored_revision, upgrade
from meshkit.database.pools import Pools
from meshkit.database.tracing import UNTRACED, StatementSpans, status_code
from meshkit.database.transactions import finished, transaction
from meshkit.deadline import remaining

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from alembic.script import ScriptDirectory
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from meshkit.errors import Unavailable

    Seed = Callable[[AsyncConnection], Awaitable[None]]

log = logging.getLogger("meshkit.database")

T = TypeVar("T")

FINISH_SECONDS = 2.0
"""Seconds that a write may take to finish after its caller was cancelled."""

MIGRATION_SECONDS = 600.0
"""The same for a migration, which must not start over and over."""

POLL_SECONDS = 0.002
RETRY_AFTER = 1.0
MIGRATION_LOCK = 0x6D657368
"""PostgreSQL's advisory lock key of migrations."""

TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014", "25006", "3D000"})
TRANSIENT_CLASSES = frozenset({"08", "28", "53", "57", "58"})
"""SQLSTATEs of a PostgreSQL that cannot serve now: serialization, deadlock, lock and statement time-outs, read-only
standby, missing database; connection, authorization, resources, operator intervention, system error.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""

TRANSIENT_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_READONLY")
"""The same of SQLite, extended codes included. https://www.sqlite.org/rescode.html"""


class Database:
    """One database and its connections. Whoever makes it closes it.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host:port/name`; the asynchronous driver is chosen here.
        unavailable: the service's error for a database that cannot be reached or stays locked. Driver errors of that
            kind are raised as this one, all others are bugs and pass.
        tracer: makes a span for each statement of a traced request.
        meter: counts the connections of the pools, see `meshkit.database.pools`.
        patience: seconds that a call waits for a connection or the write lock, unless it is cancelled; a read waits
            for half of its budget at most.

    Raises:
        ValueError: the URL names no file on disk and no PostgreSQL database.
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
        self._url = checked_url(url)
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
            Unavailable: as the service's own class; also until `prepare` has passed.
        """
        self._require_prepared()
        with self._translated():
            async with self._connection(self._readers, patience=self._patience_to_read()) as connection:
                yield connection

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Runs `work` in one write transaction: committed when it returns, rolled back when it raises.

        Raises:
            Unavailable: as the service's own class; nothing was changed, or (if a connection breaks in the middle of
                COMMIT) nobody knows: make writes repeatable. Also until `prepare` has passed.
        """
        self._require_prepared()
        return await self._write(work, FINISH_SECONDS)

    async def prepare(self, migrations: Path, seed: Seed) -> None:
        """Brings the schema to this release's revision; seeds a database that had no schema at all.

        All of it is one write transaction, so several processes may start at once, and one that dies leaves nothing
        half done. When the schema is current, nothing is locked. Call it until it passes; after that it answers at
        once.

        Args:
            migrations: a directory of Alembic revisions, see `meshkit.database.migrations`.
            seed: fills the new tables.

        Raises:
            Unavailable: as the service's own class; call again later.
            UnknownRevision: the schema is not of this release or an older one. Nothing was touched.
        """
        if self._prepared:
            return
        known = await asyncio.to_thread(known_revisions, migrations)
        with self._translated():
            if self._sqlite:
                await self._enable_wal()
            async with self._connection(self._readers) as connection:
                stored = await connection.run_sync(stored_revision, known)
        if stored != known[-1]:
            scripts = await asyncio.to_thread(load_scripts, migrations)
            await self._write(partial(self._upgrade, known, scripts, seed), MIGRATION_SECONDS)
        self._prepared = True

    async def check(self) -> None:
        """Passes if the database answers.

        Raises:
            Unavailable: as the service's own class.
        """
        async with self.read() as connection:
            await connection.execute(text("SELECT version_num FROM alembic_version"))

    async def close(self) -> None:
        """Closes all connections. Calls must have ended."""
        await self._readers.dispose()
        await self._writers.dispose()

    def _require_prepared(self) -> None:
        if not self._prepared:
            raise self._unavailable("the database is not ready yet", retry_after=RETRY_AFTER)

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[T]], finish_seconds: float) -> T:
        with self._translated():
            async with (
                asyncio.timeout(self._patience) as patience,
                self._connection(self._writers, self._turn) as connection,
            ):
                await self._begin(connection)
                patience.reschedule(None)
                return await finished(transaction(connection, work), finish_seconds)

    async def _begin(self, connection: AsyncConnection) -> None:
        if not self._sqlite:
            await connection.exec_driver_sql("BEGIN")
            return
        with self._spans.one_span("BEGIN IMMEDIATE"):
            await _when_unlocked(connection, "BEGIN IMMEDIATE")

    async def _upgrade(
        self, known: list[str], scripts: ScriptDirectory, seed: Seed, connection: AsyncConnection
    ) -> None:
        if not self._sqlite:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        stored = await connection.run_sync(stored_revision, known)
        if stored == known[-1]:  # another process was first
            return
        await connection.run_sync(upgrade, scripts, stored)
        if stored is None:
            await seed(connection)
        log.info("migrated the database from %s to %s", stored or "nothing", known[-1])

    async def _enable_wal(self) -> None:
        """Makes WAL the file's mode, for good. Two processes that do so at once may find it locked."""
        async with asyncio.timeout(self._patience), self._connection(self._writers) as connection:
            await _when_unlocked(connection, "PRAGMA journal_mode=WAL")

    @asynccontextmanager
    async def _connection(
        self,
        engine: AsyncEngine,
        turn: AbstractAsyncContextManager[None] | None = None,
        *,
        patience: float | None = None,
    ) -> AsyncIterator[AsyncConnection]:
        limit = self._patience if patience is None else patience
        async with asyncio.timeout(limit) as waiting, AsyncExitStack() as held:
            with self._pools.waiting(engine):
                await held.enter_async_context(turn or nullcontext())
                connection = await held.enter_async_context(engine.connect())
            waiting.reschedule(None)
            yield connection

    def _patience_to_read(self) -> float:
        """At most half of the budget: so the caller is told in time what is wrong, and can ask another replica."""
        left = remaining()
        return self._patience if left is None else min(self._patience, left / 2)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raises the service's error for a database that cannot serve; callers never see a driver's text."""
        try:
            yield
        except TimeoutError as error:
            message = "the database cannot be reached, or others keep it busy"
            raise self._unavailable(message, retry_after=RETRY_AFTER) from error
        except OSError as error:
            raise self._unavailable("the database cannot be reached", retry_after=RETRY_AFTER) from error
        except DBAPIError as error:
            if not _transient(error):
                raise
            raise self._unavailable("the database cannot serve now", retry_after=RETRY_AFTER) from error


async def _when_unlocked(connection: AsyncConnection, statement: str) -> None:
    """Runs a statement, without a span of its own, as soon as no other process holds the lock."""
    while True:
        try:
            await connection.exec_driver_sql(statement, execution_options={UNTRACED: True})
        except DBAPIError as error:
            if not (status_code(error) or "").startswith("SQLITE_BUSY"):
                raise
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


def _transient(error: DBAPIError) -> bool:
    code = status_code(error) or ""
    return (
        error.connection_invalidated
        or code in TRANSIENT
        or code[:2] in TRANSIENT_CLASSES
        or code.startswith(TRANSIENT_SQLITE)
    )
