"""A real HTTP server with a small app, and connections on which a test sends bytes of its choice."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from meshkit.fastapi.middleware import TraceHeaders
from meshkit.fastapi.problem_details import Problems
from meshkit.fastapi.server import listen_socket, serve
from meshkit.http.limits import Limits
from meshkit.lifecycle import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

PROBLEMS = Problems(domain="test.example")
HOST = b"Host: x\r\n"


@dataclass(frozen=True)
class Answer:
    """A complete response with its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        """The reason of a problem."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        return str(problem["reason"])


class Client:
    """One HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *parts: bytes) -> None:
        """Sends the parts, each in a segment of its own."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def answer(self) -> Answer:
        """The next response."""
        line, *fields = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(line.split(" ")[1]), headers, body)

    async def rest(self) -> bytes:
        """What comes until the server closes its side."""
        return await self.reader.read()


class App:
    """Counts what it does.

    Paths: `/` responds with the method at once, `/body` with the length of the body, `/wait` when `free` is set,
    `/begun` begins a response and then waits for the client to disconnect, `/large` sends 16 MB.
    """

    def __init__(self) -> None:
        self.started = self.cancelled = 0
        self.free, self.reached, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.fields: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started += 1
        self.fields = scope["headers"]
        self.reached.set()
        try:
            await self._respond(scope, receive, send)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended.set()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/body":
                await respond(send, b"%d" % await length(receive))
            case "/wait":
                await self.free.wait()
                await respond(send, scope["query_string"])
            case "/begun":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"begun", "more_body": True})
                while (await receive())["type"] != "http.disconnect":
                    pass
            case "/large":
                await respond(send, bytes(16_000_000))
            case _:
                await respond(send, scope["query_string"])


async def length(receive: Receive) -> int:
    """The length of the body."""
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message.get("body", b""))
        more = message.get("more_body", False)
    return total


async def respond(send: Send, body: bytes) -> None:
    """Sends a complete response."""
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Running:
    """A running server."""

    address: tuple[str, int]
    stop: Stop
    task: asyncio.Task[None]

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        """A connection."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def http_server(app: ASGIApp, **limits: Any) -> AsyncIterator[Running]:
    """Serves the app on a free port, within the limits."""
    stop, listener = Stop(), listen_socket("127.0.0.1:0")
    traced = TraceHeaders(app, problems=PROBLEMS)
    task = asyncio.create_task(
        serve(traced, problems=PROBLEMS, listener=listener, stop=stop, drain_seconds=0, limits=Limits(**limits))
    )
    try:
        yield Running(listener.getsockname(), stop, task)
    finally:
        stop.request()
        stop.request()
        await task


@asynccontextmanager
async def app_session(app: ASGIApp) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the app, which is served as it is."""
    stop, listener = Stop(), listen_socket("127.0.0.1:0")
    host, port = listener.getsockname()
    task = asyncio.create_task(serve(app, problems=PROBLEMS, listener=listener, stop=stop))
    try:
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            yield session
    finally:
        stop.request()
        await task


def get(target: str = "/", *fields: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """A request without a body."""
    lines = [f"{method} {target} {version}", "Host: x", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def post(target: str, body: bytes = b"", *fields: str) -> bytes:
    """A request with a body."""
    return get(target, f"Content-Length: {len(body)}", *fields, method="POST") + body


def chunked(target: str, *fields: str) -> bytes:
    """The head of a request with a chunked body."""
    return get(target, "Transfer-Encoding: chunked", *fields, method="POST")
