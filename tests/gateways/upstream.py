"""A server in place of an edge that shows what a gateway sends, and does what no edge does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from tests.gateways.shop import Place
from tests.ports import held_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

PROBES = ("GET /livez ", "GET /readyz ")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Upstream:
    """Answers each request with one function, which writes the response.

    Attributes:
        requests: the request lines, without those of probes.
        fields: those of the last request.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[str] = []
        self.fields: CIMultiDict[str] = CIMultiDict()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of a connection, which is closed after its response."""
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        if line.startswith(PROBES):
            writer.write(OK)
        else:
            self.requests.append(line)
            self.fields = CIMultiDict(field.partition(": ")[::2] for field in fields)
            await reader.readexactly(int(self.fields.get("Content-Length", 0)))
            await self._answer(writer)
        writer.close()


async def answer_ok(writer: asyncio.StreamWriter) -> None:
    """A short response."""
    writer.write(OK)


async def answer_nothing(_: asyncio.StreamWriter) -> None:
    """As an edge that is killed within a request."""


@asynccontextmanager
async def upstream(answer: Answer = answer_ok) -> AsyncIterator[tuple[Upstream, Place]]:
    """An upstream of REST, and its place. Nothing is on its port for gRPC."""
    running = Upstream(answer)
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    async with server:
        yield running, Place(server.sockets[0].getsockname()[1], held_port())
