"""The connections to a SQLite file."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from meshkit.database.backend import CHECK
from meshkit.database.pools import Pools
from meshkit.database.reads import Read, Reads
from meshkit.database.sqlite import connect_reader, sqlite_engine
from meshkit.database.sqlite_file import SqliteFile
from meshkit.database.sqlite_reader import SqliteReader
from meshkit.database.sqlite_writer import SqliteWriter
from meshkit.database.tracing import StatementSpans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer
    from sqlalchemy import URL, Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.sql.selectable import TypedReturnsRows

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BUSY_SECONDS = 1.0
"""How long a reader waits for a lock, which blocks its own thread. In WAL mode it hardly ever waits."""


class SqliteBackend:
    """A Backend. See Database for the arguments."""

    def __init__(self, url: URL, tracer: Tracer, meter: Meter, patience: float) -> None:
        self._url = url
        self._tracer = tracer
        self._patience = patience
        self._file = file = SqliteFile(url.database or "")
        engine = sqlite_engine(url, file)
        spans = StatementSpans(engine, tracer)
        connect = partial(connect_reader, file, busy_seconds=BUSY_SECONDS)
        self._writer = SqliteWriter(engine, spans, file.verify, patience)
        self._reader, self._checker = SqliteReader(connect, spans), SqliteReader(connect, spans, most=1)
        self._reads = Reads(self._reader, engine.dialect, spans)
        self._check = Read(CHECK, (), spans.describe(CHECK))
        self._engines: dict[str, AsyncEngine] = {}
        self._pools = Pools(self._engines, meter, {"readers": self._reader.usage, "writers": self._writer.usage})

    async def create(self) -> None:
        """See Backend."""
        await self._file.create()
        await self._writer.enable_wal()
        await self._file.hold()

    def fetch(
        self, statement: TypedReturnsRows[*Ts], parameters: Mapping[str, Any], patience: float
    ) -> Awaitable[Sequence[tuple[*Ts]]]:
        """See Backend."""
        self._file.require()
        return self._reads.fetch(statement, parameters, patience)

    def read(self, patience: float) -> AbstractAsyncContextManager[AsyncConnection]:
        """See Backend."""
        self._file.require()
        return self._pools.connect(self._connected(), patience)

    async def look(self, work: Callable[[Connection], T]) -> T:
        """See Backend."""
        return await self._writer.look(work)

    async def check(self) -> None:
        """See Backend."""
        self._file.verify()
        await self._checker.fetch(self._check, self._patience)

    async def write(self, work: Callable[[Connection], T], finish_seconds: float) -> T:
        """See Backend."""
        return await self._writer.write(work, finish_seconds)

    async def close(self) -> None:
        """See Backend."""
        await asyncio.gather(self._reader.close(), self._checker.close(), self._writer.close())
        for engine in self._engines.values():
            await engine.dispose()
        await self._file.close()

    def _connected(self) -> AsyncEngine:
        """The engine of `read`, which not every service calls."""
        if "readers" not in self._engines:
            from meshkit.database.sqlite_async import async_engine  # noqa: PLC0415 - slow

            engine = async_engine(self._url, self._file, connections=4, busy_seconds=BUSY_SECONDS)
            StatementSpans(engine.sync_engine, self._tracer)
            self._engines["readers"] = engine
        return self._engines["readers"]
