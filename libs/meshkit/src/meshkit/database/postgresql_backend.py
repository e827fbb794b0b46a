"""The connections to a PostgreSQL server. The function of a transaction runs in a greenlet, which waits for asyncpg."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from meshkit.database.backend import CHECK
from meshkit.database.driver_reader import DriverReader
from meshkit.database.pools import Pools
from meshkit.database.postgresql import Connector, begin_pooled, postgresql_engine
from meshkit.database.reads import Reads
from meshkit.database.silence import SilenceWatch
from meshkit.database.tracing import StatementSpans
from meshkit.database.transactions import finish, roll_back, transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.sql.selectable import TypedReturnsRows

    from meshkit.database.libpq import Server

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class PostgresqlBackend:
    """A Backend. See Database for the arguments."""

    def __init__(self, server: Server, tracer: Tracer, meter: Meter, patience: float) -> None:
        self._server = server
        self._patience = patience
        connector, watch = Connector(server, patience), SilenceWatch()
        self._readers = postgresql_engine(connector, watch, connections=5)
        self._writers = postgresql_engine(connector, watch, connections=5)
        self._checkers = postgresql_engine(connector, watch, connections=1)
        self._pools = Pools({"readers": self._readers, "writers": self._writers}, meter, {})
        read_spans = StatementSpans(self._readers.sync_engine, tracer)
        self._spans = StatementSpans(self._writers.sync_engine, tracer)
        self._reads = Reads(DriverReader(self._readers, self._pools, read_spans), self._readers.dialect, read_spans)

    async def create(self) -> None:
        """See Backend: its administrator has created it."""

    async def fetch(
        self, statement: TypedReturnsRows[*Ts], parameters: Mapping[str, Any], patience: float
    ) -> Sequence[tuple[*Ts]]:
        """See Backend."""
        if self._server.transaction_pooling:
            async with self.read(patience) as connection:
                return (await connection.execute(statement, parameters)).all()
        return await self._reads.fetch(statement, parameters, patience)

    def read(self, patience: float) -> AbstractAsyncContextManager[AsyncConnection]:
        """See Backend."""
        return self._connect(self._readers, patience)

    async def look(self, work: Callable[[Connection], T]) -> T:
        """See Backend."""
        async with self._connect(self._readers, self._patience) as connection:
            return await connection.run_sync(work)

    async def check(self) -> None:
        """See Backend."""
        async with self._connect(self._checkers, self._patience) as connection:
            await connection.exec_driver_sql(CHECK)

    async def write(self, work: Callable[[Connection], T], finish_seconds: float) -> T:
        """See Backend."""
        async with (
            asyncio.timeout(self._patience) as patience,
            self._pools.connect(self._writers, self._patience) as connection,
        ):
            await self._begin(connection)
            patience.reschedule(None)
            return await finish(asyncio.create_task(connection.run_sync(_transact, work)), finish_seconds, _cancel)

    async def close(self) -> None:
        """See Backend."""
        for engine in (self._readers, self._writers, self._checkers):
            await engine.dispose()

    async def _begin(self, connection: AsyncConnection) -> None:
        if self._server.transaction_pooling:
            with self._spans.span(self._spans.describe("BEGIN")):
                await begin_pooled(connection, self._patience)
        else:
            await connection.exec_driver_sql("BEGIN")

    def _connect(self, engine: AsyncEngine, patience: float) -> AbstractAsyncContextManager[AsyncConnection]:
        if self._server.transaction_pooling:
            return self._pools.connect(engine, patience, self._pooled_read)
        return self._pools.connect(engine, patience)

    @asynccontextmanager
    async def _pooled_read(self, connection: AsyncConnection) -> AsyncIterator[None]:
        await begin_pooled(connection, self._patience)
        try:
            yield
        finally:
            await connection.run_sync(roll_back)


def _transact(connection: Connection, work: Callable[[Connection], T]) -> T:
    with transaction(connection):
        return work(connection)


async def _cancel(write: asyncio.Future[T]) -> None:
    write.cancel()
    await asyncio.wait({write})
