"""The database of one service: SQLite or PostgreSQL behind one small interface.

Theory of operation. The drivers are in autocommit mode, and this package sends BEGIN, COMMIT and ROLLBACK itself. What
differs between the two is in `sqlite_backend` and `postgresql_backend`.

- `fetch()` and `read()` have no transaction. Each statement sees one moment; read data that must be consistent in one
  statement. Readers have their own connections, so they never queue behind writers that wait for a lock. `fetch()` is
  for the statements that most requests send: it runs them without SQLAlchemy (see `meshkit.database.reads`).
- `check()` has a connection of its own too, so a service whose readers are all busy is not reported as broken.
- `write(work)` is one transaction of a plain function. On PostgreSQL the function runs in a greenlet of the event loop.
  On SQLite it runs in a thread, and the transaction starts with BEGIN IMMEDIATE, because one that reads first and locks
  later sells the same unit twice or fails half-way. The writers of this process queue in the event loop, first come,
  first served. No lock blocks a thread, and a cancellation, such as the deadline of an RPC, ends the wait at once (see
  `meshkit.database.sqlite_writer`).
- A write that has started finishes. A cancelled caller waits for it (up to FINISH_SECONDS, then it is rolled back), so
  a transaction is atomic and its connection returns to the pool clean.

- Behind a PgBouncer in transaction mode a read is a transaction, too (see `meshkit.database.postgresql`), and
  `fetch()` is `read()` with one statement.
- A SQLite file that is removed or replaced makes every call fail until it is back (see `meshkit.database.sqlite_file`).

A commit survives the death of every process, even by SIGKILL (see `meshkit.database.sqlite`).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from opentelemetry.metrics import NoOpMeter

from meshkit.database.libpq import Server
from meshkit.database.migrations import known_revisions, load_scripts, migrate, stored_revision
from meshkit.database.outages import RETRY_AFTER, raise_unavailable
from meshkit.database.sqlite_backend import SqliteBackend
from meshkit.database.urls import parse_url
from meshkit.deadline import remaining

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer
    from sqlalchemy import URL, Connection
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.selectable import TypedReturnsRows

    from meshkit.database.backend import Backend
    from meshkit.database.migrations import Seed
    from meshkit.errors import Unavailable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

FINISH_SECONDS = 2.0
"""Seconds that a write may take to finish after its caller is cancelled."""

MIGRATION_SECONDS = 600.0
"""The same for a migration, which must not restart again and again."""


class Database:
    """One database and its connections. The caller closes it.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host:port/name`, see `meshkit.database.libpq`.
        unavailable: the service's error for a database that cannot be reached or stays locked. It replaces driver
            errors of that kind, and each OSError and TimeoutError within `read` and `write`, because drivers raise
            these, too. All other errors are bugs and pass unchanged.
        tracer: creates a span for each statement of a traced request.
        meter: counts the connections of the pools, see `meshkit.database.pools`.
        patience: seconds that a call waits for a connection or the write lock, unless it is cancelled; a read waits
            for at most half of its budget.

    Raises:
        ValueError: the URL is neither a file on disk nor a PostgreSQL database, or has an invalid parameter.
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
        self._unavailable = unavailable
        self._patience = patience
        self._prepared = False
        self._backend = _backend(parse_url(url), tracer, meter or NoOpMeter("meshkit"), patience)

    async def fetch(self, statement: TypedReturnsRows[*Ts], parameters: Mapping[str, Any]) -> Sequence[tuple[*Ts]]:
        """The rows of one statement, for the statements that most requests send.

        Args:
            statement: a constant, because it is compiled when it is first used and kept. A `bindparam` that is
                `expanding` takes lists of a few different lengths.
            parameters: the value of each `bindparam`.

        Raises:
            Unavailable: raised as the service's own class, also before `prepare` has succeeded.
        """
        self._require_prepared()
        with raise_unavailable(self._unavailable):
            return await self._backend.fetch(statement, parameters, self._patience_to_read())

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading, without a transaction.

        Raises:
            Unavailable: raised as the service's own class, also before `prepare` has succeeded.
        """
        self._require_prepared()
        with raise_unavailable(self._unavailable):
            async with self._backend.read(self._patience_to_read()) as connection:
                yield connection

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one write transaction: committed when it returns, rolled back when it raises.

        Args:
            work: sends the statements, and waits for nothing else. On SQLite it runs in a thread, on PostgreSQL in the
                event loop. It returns no open result of SQLAlchemy.

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
            seed: reads what the new tables get.

        Raises:
            Unavailable: raised as the service's own class; call again later.
            UnknownRevision: this release does not know the schema. Nothing was changed.
        """
        if self._prepared:
            return
        known = await asyncio.to_thread(known_revisions, migrations)
        with raise_unavailable(self._unavailable):
            await self._backend.create()
            stored = await self._backend.look(partial(stored_revision, known=known))
        if stored != known[-1]:
            scripts = await asyncio.to_thread(load_scripts, migrations)
            rows = {} if stored else await asyncio.to_thread(seed)
            await self._write(partial(migrate, known, scripts, rows), MIGRATION_SECONDS)
        self._prepared = True

    async def check(self) -> None:
        """Checks that the database responds, on a connection that no call uses.

        Raises:
            Unavailable: raised as the service's own class.
        """
        self._require_prepared()
        with raise_unavailable(self._unavailable):
            await self._backend.check()

    async def close(self) -> None:
        """Closes all connections. No call may be in flight but `fetch`, which then raises Unavailable."""
        await self._backend.close()

    def _require_prepared(self) -> None:
        if not self._prepared:
            raise self._unavailable("the database is not ready yet", retry_after=RETRY_AFTER)

    async def _write(self, work: Callable[[Connection], T], finish_seconds: float) -> T:
        with raise_unavailable(self._unavailable):
            return await self._backend.write(work, finish_seconds)

    def _patience_to_read(self) -> float:
        """At most half of the budget, so the caller gets the error in time to try another replica."""
        left = remaining()
        return self._patience if left is None else min(self._patience, left / 2)


def _backend(target: Server | URL, tracer: Tracer, meter: Meter, patience: float) -> Backend:
    if isinstance(target, Server):
        from meshkit.database.postgresql_backend import PostgresqlBackend  # noqa: PLC0415 - slow, and not for SQLite

        return PostgresqlBackend(target, tracer, meter, patience)
    return SqliteBackend(target, tracer, meter, patience)
