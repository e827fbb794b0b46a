"""Pooled connections to PostgreSQL that a firewall has forgotten, without a sign to either end."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, text

from tests.meshkit.notes import NotesUnavailable, open_notes, seed, words, write_words

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from meshkit.database.database import Database

DEADLINE = 2.0
"""Seconds of a call, after which a connection that is silent is suspicious."""


class Firewall:
    """Forwards connections to a server."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._rules = 0
        self.connections = 0
        self._writers: list[StreamWriter] = []

    def forget(self) -> None:
        """From now on swallows what is sent on the connections that exist, in both directions."""
        self._rules += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Listens; yields the port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        onward_reader, onward_writer = await asyncio.open_connection(*self._server)
        self._writers += [writer, onward_writer]
        with suppress(OSError):
            await asyncio.gather(self._pump(reader, onward_writer), self._pump(onward_reader, writer))

    async def _pump(self, reader: StreamReader, writer: StreamWriter) -> None:
        rules = self._rules
        while data := await reader.read(65536):
            if rules == self._rules:
                writer.write(data)
        writer.close()


@asynccontextmanager
async def notes_behind_a_firewall(url: str, migrations: Path) -> AsyncIterator[tuple[Database, Firewall]]:
    """A database whose pools are full of connections."""
    server = make_url(url)
    firewall = Firewall(server.host or "", server.port or 5432)
    async with firewall.running() as port:
        through = server.set(host="127.0.0.1", port=port).update_query_dict({"sslmode": "disable"})
        async with open_notes(through.render_as_string(hide_password=False)) as database:
            await database.prepare(migrations, seed)
            await asyncio.gather(*(read_slowly(database, 0.05) for _ in range(5)))
            await asyncio.gather(*(database.write(write_words) for _ in range(20)))
            yield database, firewall


async def read_slowly(database: Database, seconds: float) -> None:
    async with database.read() as connection:
        await connection.execute(text(f"SELECT pg_sleep({seconds})"))


async def failures(calls: Sequence[Callable[[], Awaitable[object]]]) -> int:
    """How many of these calls fail, one after the other, within their deadlines."""
    failed = 0
    for call in calls:
        try:
            async with asyncio.timeout(DEADLINE):
                await call()
        except (TimeoutError, NotesUnavailable):
            failed += 1
    return failed


@pytest.mark.timeout(60)
async def test_two_pools_of_forgotten_connections_cost_one_call_or_check(
    postgres_database: str, migrations: Path
) -> None:
    async def cost(*order: str) -> int:
        async with notes_behind_a_firewall(postgres_database, migrations) as (database, firewall):
            calls: dict[str, list[Callable[[], Awaitable[object]]]] = {
                "checks": [database.check],
                "reads": [lambda: words(database)] * 7,
                "writes": [lambda: database.write(write_words)] * 7,
            }
            firewall.forget()
            return await failures([call for kind in order for call in calls[kind]])

    orders = [("reads", "writes"), ("writes", "reads"), ("checks", "reads", "writes")]
    assert await asyncio.gather(*(cost(*order) for order in orders)) == [1, 1, 1]


async def test_a_client_that_disconnects_replaces_only_its_own_connection(
    postgres_database: str, migrations: Path
) -> None:
    async with notes_behind_a_firewall(postgres_database, migrations) as (database, firewall):
        before = firewall.connections
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_slowly(database, 5), 0.05)
        assert await failures([lambda: words(database)] * 10 + [lambda: database.write(write_words)] * 10) == 0
        assert firewall.connections - before <= 2  # the request to cancel the statement, and the new connection


async def test_the_kernel_watches_for_a_silent_server(postgres_database: str, migrations: Path) -> None:
    url = make_url(postgres_database).update_query_dict({"keepalives_idle": "7", "tcp_user_timeout": "1234"})
    async with open_notes(url.render_as_string(hide_password=False)) as database:
        await database.prepare(migrations, seed)
        async with database.read() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver
            own: socket.socket = driver._transport.get_extra_info("socket")
            assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1234


async def test_a_silent_host_does_not_keep_the_others_away(postgres_database: str, migrations: Path) -> None:
    server = make_url(postgres_database)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{server.host}:{server.port}"
        url = f"postgresql://{server.username}@{hosts}/{server.database}"
        async with open_notes(url, patience=2) as database:
            with pytest.raises(NotesUnavailable):
                await database.prepare(migrations, seed)
            await database.prepare(migrations, seed)
            assert await words(database) == "one"
