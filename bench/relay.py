"""A network with a delay, between a client and a server on this machine."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PART = 65_536


class Relay:
    """Passes on each part of a connection `delay` seconds after it came, in both directions.

    A connection begins with one more round trip, because the kernel accepts it without a delay.

    Attributes:
        address: host and port, where it listens.
        connections: how many there were.
    """

    def __init__(self, target: str, delay: float) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._delay = delay
        self.address = ""
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have closed it."""
        self.connections += 1
        await asyncio.sleep(2 * self._delay)
        server_reader, server_writer = await asyncio.open_connection(self._host, int(self._port))
        await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while part := await reader.read(PART):
                loop.call_later(self._delay, writer.write, part)
        loop.call_later(self._delay, writer.close)


@asynccontextmanager
async def relay(target: str, delay: float) -> AsyncIterator[Relay]:
    """Starts a relay to a server at `host:port`."""
    running = Relay(target, delay)
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    running.address = f"{host}:{port}"
    try:
        yield running
    finally:
        server.close()
