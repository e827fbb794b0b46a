"""Counts the connections of SQLAlchemy's pools, and the requests that wait for one.

https://opentelemetry.io/docs/specs/semconv/database/database-metrics/#connection-pools. Taking a connection records
nothing; a scrape reads the pools.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

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
    from collections.abc import Iterable, Iterator, Mapping

    from opentelemetry.metrics import CallbackOptions, Meter
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import QueuePool

IDLE, USED = DbClientConnectionStateValues.IDLE.value, DbClientConnectionStateValues.USED.value


class Pools:
    """The pools of one database, by name. Create one per meter: a meter ignores a second instrument's callbacks."""

    def __init__(self, engines: Mapping[str, AsyncEngine], meter: Meter) -> None:
        self._engines = engines
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

    @contextmanager
    def count_waiter(self, engine: AsyncEngine) -> Iterator[None]:
        """Counts one waiting request of an engine's pool while the block runs."""
        self._pending[engine] += 1
        try:
            yield
        finally:
            self._pending[engine] -= 1

    def _observe_count(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, engine in self._engines.items():
            pool = cast("QueuePool", engine.pool)
            for state, count in ((IDLE, pool.checkedin()), (USED, pool.checkedout())):
                yield Observation(count, {**_attributes(name), DB_CLIENT_CONNECTION_STATE: state})

    def _observe_max(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, engine in self._engines.items():
            yield Observation(cast("QueuePool", engine.pool).size(), _attributes(name))

    def _observe_pending(self, _options: CallbackOptions) -> Iterable[Observation]:
        for name, engine in self._engines.items():
            yield Observation(self._pending[engine], _attributes(name))


def _attributes(pool: str) -> dict[str, str]:
    return {DB_CLIENT_CONNECTION_POOL_NAME: pool}
