"""Reads PostgreSQL by asyncpg itself, on the connections of SQLAlchemy's pool, with prepared statements.

asyncpg prepares a statement on each connection when it is first sent there, and prepares it again after a migration.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import PoolProxiedConnection

    from meshkit.database.pools import Pools
    from meshkit.database.reads import Read
    from meshkit.database.tracing import StatementSpans


class DriverReader:
    """Reads on the connections of an engine, which the caller disposes of."""

    def __init__(self, engine: AsyncEngine, pools: Pools, spans: StatementSpans) -> None:
        self._engine = engine
        self._pools = pools
        self._spans = spans

    async def fetch(self, read: Read, patience: float) -> Sequence[Any]:
        """See Reader."""
        connection = await self._take(patience)
        try:
            with self._spans.span(read.description):
                rows: Sequence[Any] = await _driver(connection).fetch(read.text, *read.arguments)
                return rows
        except BaseException as error:
            await _give_up(connection, error)
            raise
        finally:
            connection.close()

    async def _take(self, patience: float) -> PoolProxiedConnection:
        with self._pools.count_waiter(self._engine):
            async with asyncio.timeout(patience):
                return await self._engine.raw_connection()


def _driver(connection: PoolProxiedConnection) -> asyncpg.Connection:
    return connection.driver_connection  # pyright: ignore[reportReturnType] # it is open


async def _give_up(connection: PoolProxiedConnection, error: BaseException) -> None:
    """Closes a connection that is broken, or whose statement was cancelled.

    Raises:
        ConnectionError: it is broken.
    """
    is_broken = _driver(connection).is_closed()
    if is_broken or not isinstance(error, Exception):
        await greenlet_spawn(connection.invalidate, error)
    if is_broken and isinstance(error, Exception):
        raise ConnectionError(str(error)) from error
