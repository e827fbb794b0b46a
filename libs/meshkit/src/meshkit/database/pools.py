"""Takes connections from a database's pools, and counts them and the requests that wait for one.

https://opentelemetry.io/docs/specs/semconv/database/database-metrics/#connection-pools. Taking a connection records
nothing; a scrape reads the pools.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, cast

from opentelemetry.metrics import Observation
from opentelemetry.semconv._incubating.attributes.db_attributes import (
    DB_CLIENT_CONNECTION_POOL_NAME,
    DB_CLIENT_CONNECTION_STATE,
    DbClientConnectionStateValues,
)
from opentelemetry.semconv._incubating.metrics.db_metrics import (
    DB_CLIENT_CONNECTION_COUNT,
    DB_CLIENT_CONNECTION_MAX,
    DB_CLIENT_CONNECTION_PENDING_REQUESTS,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from opentelemetry.metrics import CallbackOptions, Meter
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.pool import QueuePool

IDLE, USED = DbClientConnectionStateValues.IDLE.value, DbClientConnectionStateValues.USED.value


class Usage(NamedTuple):
    """The connections of a pool, and the requests that wait for one."""

    idle: int
    used: int
    most: int
    pending: int

    def plus(self, other: Usage) -> Usage:
        """The sum of two."""
        return Usage(*(sum(both) for both in zip(self, other, strict=True)))


class Pools:
    """The pools of one database, by name. Create one per meter: a meter ignores a second instrument's callbacks.

    Args:
        engines: the engine of each pool that has one.
        meter: counts the connections.
        threads: the connections of pools which are in no engine.
    """

    def __init__(
        self, engines: Mapping[str, AsyncEngine], meter: Meter, threads: Mapping[str, Callable[[], Usage]]
    ) -> None:
        self._engines = engines
        self._threads = threads
        self._pending: Counter[AsyncEngine] = Counter()
        for name, callback, unit, description in (
            (DB_CLIENT_CONNECTION_COUNT, self._observe_count, "{connection}", "Connections in the pool, by state."),
            (
                DB_CLIENT_CONNECTION_MAX,
                self._observe_max,
                "{connection}",
                "The most connections that the pool may open.",
            ),
            (
                DB_CLIENT_CONNECTION_PENDING_REQUESTS,
                self._observe_pending,
                "{request}",
                "Requests that wait for a connection.",
            ),
        ):
            meter.create_observable_up_down_counter(name, [callback], unit, description)

    @asynccontextmanager
    async def connect(
        self,
        engine: AsyncEngine,
        patience: float,
        scope: Callable[[AsyncConnection], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> AsyncIterator[AsyncConnection]:
        """A connection of an engine, which returns to its pool after the block.

        Args:
            engine: has the pool.
            patience: seconds that the caller waits for the connection and its `scope`, then TimeoutError.
            scope: surrounds the use of the connection.
        """
        async with asyncio.timeout(patience) as timeout, AsyncExitStack() as stack:
            with self.count_waiter(engine):
                connection = await stack.enter_async_context(engine.connect())
                await stack.enter_async_context(scope(connection))
            timeout.reschedule(None)
            yield connection

    @contextmanager
    def count_waiter(self, engine: AsyncEngine) -> Iterator[None]:
        """Counts one waiting request of an engine's pool while the block runs."""
        self._pending[engine] += 1
        try:
            yield
        finally:
            self._pending[engine] -= 1

    def _observe_count(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, usage in self._usages():
            for state, count in ((IDLE, usage.idle), (USED, usage.used)):
                yield Observation(count, {**_attributes(name), DB_CLIENT_CONNECTION_STATE: state})

    def _observe_max(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, usage in self._usages():
            yield Observation(usage.most, _attributes(name))

    def _observe_pending(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, usage in self._usages():
            yield Observation(usage.pending, _attributes(name))

    def _usages(self) -> Iterator[tuple[str, Usage]]:
        for name in {**self._engines, **self._threads}:
            usage = self._threads[name]() if name in self._threads else Usage(0, 0, 0, 0)
            yield name, usage.plus(self._usage_of(self._engines[name])) if name in self._engines else usage

    def _usage_of(self, engine: AsyncEngine) -> Usage:
        pool = cast("QueuePool", engine.pool)
        return Usage(pool.checkedin(), pool.checkedout(), pool.size(), self._pending[engine])


def _attributes(pool: str) -> dict[str, str]:
    return {DB_CLIENT_CONNECTION_POOL_NAME: pool}
