"""SQLAlchemy engines for PostgreSQL, in autocommit mode, also behind PgBouncer.

Time-outs are set by statements: PgBouncer refuses them as parameters of a new connection. In transaction mode it may
run each transaction in another session, so there everything happens in a transaction, which BEGIN and SET LOCAL start
in one message, and no prepared statement has a name. https://www.pgbouncer.org/features.html
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy import AdaptedConnection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from meshkit.database.libpq import KeepAlive, Server
    from meshkit.database.silence import SilenceWatch

_UNNAMED = {
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": str,
}


def postgresql_engine(connector: Connector, watch: SilenceWatch, *, connections: int) -> AsyncEngine:
    """An engine with up to `connections`."""
    pooling = connector.server.transaction_pooling
    engine = create_async_engine(
        connector.server.url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=2 * connector.patience,
        connect_args={"async_creator_fn": connector.connect, **(_UNNAMED if pooling else {})},
    )
    if pooling:
        event.listen(engine.sync_engine, "connect", _end_transaction)
    watch.add(engine)
    return engine


def time_outs(patience: float, *, local: bool = False) -> str:
    """Statements that limit the wait for a lock, and the life of a transaction whose client is silent."""
    command = "SET LOCAL" if local else "SET"
    milliseconds = max(1, round(patience * 1000))
    return f"{command} lock_timeout = {milliseconds}; {command} idle_in_transaction_session_timeout = 10000"


class Connector:
    """Opens connections to a server; waits up to `patience` seconds for it, and its connections for a row lock.

    If a host keeps it waiting, the next connection tries the next host first: a host that is silent, for which asyncpg
    waits as long as it may, does not keep the others away.
    """

    def __init__(self, server: Server, patience: float) -> None:
        self.server = server
        self.patience = patience
        self._first = 0
        self._timeout = min(patience, server.connect_timeout or patience)
        self._class = _connection_class(server.keepalive)

    async def connect(self, **_: object) -> asyncpg.Connection:
        """A connection whose time-outs are set; behind a PgBouncer in transaction mode it is in a transaction.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError: no host has accepted the connection.
        """
        first = self._first
        try:
            connection = await self._open(first)
        except BaseException:
            if self.server.hosts and self._first == first:
                self._first = (first + 1) % len(self.server.hosts)
            raise
        try:
            # SQLAlchemy sends statements that set a connection up.
            await connection.execute("BEGIN" if self.server.transaction_pooling else time_outs(self.patience))
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _open(self, first: int) -> asyncpg.Connection:
        hosts = [*self.server.hosts[first:], *self.server.hosts[:first]]
        arguments: dict[str, Any] = dict(self.server.arguments)
        if hosts:
            arguments["host"] = [name for name, _ in hosts]
        if any(port for _, port in hosts):
            arguments["port"] = [port or 5432 for _, port in hosts]
        if self.server.transaction_pooling:
            arguments["statement_cache_size"] = 0
        try:
            return await asyncpg.connect(**arguments, timeout=cast("int", self._timeout), connection_class=self._class)
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise ConnectionError(str(error)) from error


def _connection_class(keepalive: KeepAlive) -> type[asyncpg.Connection]:
    class KeptAlive(asyncpg.Connection):  # type: ignore[misc]  # it has no types
        """A connection that ends when its server is silent at the level of TCP."""

        __slots__ = ()

        def __init__(self, protocol: object, transport: asyncio.Transport, *arguments: Any) -> None:
            super().__init__(protocol, transport, *arguments)
            _keep_alive(transport.get_extra_info("socket"), keepalive)

    return KeptAlive


def _keep_alive(connection: socket.socket, keepalive: KeepAlive) -> None:
    if connection.family == socket.AF_UNIX or not keepalive.enabled:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", keepalive.idle),
        ("TCP_KEEPINTVL", keepalive.interval),
        ("TCP_KEEPCNT", keepalive.count),
        ("TCP_USER_TIMEOUT", keepalive.user_timeout),
    ):
        if hasattr(socket, name):  # macOS lacks some of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _end_transaction(connection: DBAPIConnection, _record: object) -> None:
    """Ends the transaction in which SQLAlchemy has set up a new connection."""
    cast("AdaptedConnection", connection).run_async(lambda driver: driver.execute("ROLLBACK"))


async def begin_pooled(connection: AsyncConnection, patience: float) -> None:
    """Begins a transaction behind a PgBouncer in transaction mode.

    Raises:
        ConnectionError: there is no connection now.
    """
    driver = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)
    try:
        await driver.execute(f"BEGIN; {time_outs(patience, local=True)}")
    except BaseException as error:
        await connection.invalidate(error)
        if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
            raise ConnectionError(str(error)) from error
        raise
