"""A name server for tests, which set the address of its names."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ipaddress import IPv4Address

NO_SUCH_NAME = 3


class Names(asyncio.DatagramProtocol):
    """A DNS server (RFC 1035) that returns one IPv4 address, or none, for every name, and counts the queries."""

    address: IPv4Address | None = None
    queries = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.queries += 1
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", data[end - 4 : end - 2])
        known = self.address if kind == 1 else None
        answer = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 0, 4, known.packed) if known else b""
        flags = 0x8180 | (0 if self.address else NO_SUCH_NAME)
        self.transport.sendto(
            data[:2] + struct.pack("!5H", flags, 1, int(bool(answer)), 0, 0) + data[12:end] + answer, addr
        )


@asynccontextmanager
async def dns() -> AsyncIterator[tuple[str, Names]]:
    """Starts a DNS server on a free port. Yields its address and the server."""
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(Names, ("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")
    try:
        yield f"{host}:{port}", names
    finally:
        transport.close()
