"""Replaces pooled connections that may be dead, before a call uses them.

A firewall that forgets idle connections drops what is sent on them, so a statement gets no response until its caller
gives up. Then every connection that has not been taken since is under suspicion, in all pools of the database, and is
replaced when it is next taken: a pool full of dead connections costs one call. A connection that is
already closed, as after a restart of the server, costs none. Nothing is sent to find out.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, cast

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy import AdaptedConnection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

SILENT_SECONDS = 0.25
"""A connection that is given up sooner, as when a client disconnects, throws no suspicion on others."""

_TAKEN = "meshkit_taken"
"""When a connection was last taken from its pool: seconds of the monotonic clock."""


class SilenceWatch:
    """Watches the pools of one PostgreSQL database."""

    def __init__(self) -> None:
        self._silent_since = 0.0

    def add(self, engine: AsyncEngine) -> None:
        """Watches the pool of an engine."""
        event.listen(engine.sync_engine, "checkout", self._on_checkout)
        event.listen(engine.sync_engine, "invalidate", self._on_invalidate)
        event.listen(engine.sync_engine, "close", self._on_close)

    def _on_checkout(self, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        info = record.info
        if info.get(_TAKEN, inf) < self._silent_since or _driver(connection).is_closed():
            raise DisconnectionError("the connection may be dead")
        info[_TAKEN] = monotonic()

    def _on_invalidate(
        self, _connection: DBAPIConnection, record: ConnectionPoolEntry, error: BaseException | None
    ) -> None:
        if isinstance(error, DisconnectionError):  # of _on_checkout
            return
        now = monotonic()
        taken = record.info.get(_TAKEN, now)
        if not isinstance(error, asyncio.CancelledError) or now - taken >= SILENT_SECONDS:
            self._silent_since = max(self._silent_since, taken)

    def _on_close(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        """Closes a suspect at once, because a dead server never confirms the end of a connection."""
        if record.info.get(_TAKEN, inf) < self._silent_since:
            _driver(connection).terminate()


def _driver(connection: DBAPIConnection) -> asyncpg.Connection:
    driver: asyncpg.Connection = cast("AdaptedConnection", connection).driver_connection
    return driver
