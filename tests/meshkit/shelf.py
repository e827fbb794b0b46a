"""A gRPC service that looks up books on a shelf, one by one or in batches, over plain bytes; and calls that batch."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from meshkit.client.batch_call import BatchMethod
from meshkit.client.batching import BatchingCalls
from meshkit.client.channel import open_channel
from meshkit.errors import NotFound
from meshkit.server.build import build_server
from meshkit.server.health import SERVING, Health
from meshkit.status import service_errors
from meshkit.testing import SpanCapture, start_server
from tests.meshkit.echo import always_healthy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from meshkit.errors import ServiceError

SERVICE = "test.Shelf"
GET, BATCH_GET = f"{SERVICE}/Get", f"{SERVICE}/BatchGet"
NEVER = 60.0
"""Seconds after which a call is late, in tests where none is."""

Context = grpc.aio.ServicerContext[bytes, bytes]


class NoBook(NotFound, domain="shelf.test"):
    """There is no such book."""

    def __init__(self, title: bytes) -> None:
        super().__init__(f"there is no {title!r}")


@dataclass
class Shelf:
    """The server's side. It has every book but those whose title begins with `no`.

    Attributes:
        calls: the calls that have reached a handler, as the method and its titles.
        open: set while handlers may return.
        failures: what the handlers of a method fail with.
        garbage: what `BatchGet` responds with, if it is set.
        time_left: seconds until the deadline of each call.
        cancelled: the number of cancelled handlers.
        most_active: the most handlers at a time.
    """

    calls: list[tuple[str, list[bytes]]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    failures: dict[str, ServiceError | grpc.StatusCode] = field(default_factory=dict)
    garbage: bytes | None = None
    time_left: list[float | None] = field(default_factory=list)
    cancelled: int = 0
    active: int = 0
    most_active: int = 0

    async def get(self, request: bytes, context: Any) -> bytes:
        await self._enter("Get", [request], context)
        if request.startswith(b"no"):
            raise NoBook(request)
        return request.upper()

    async def batch_get(self, request: bytes, context: Any) -> bytes:
        titles = request.split(b",")
        await self._enter("BatchGet", titles, context)
        return self.garbage or b",".join(b"" if title.startswith(b"no") else title.upper() for title in titles)

    async def until_called(self, times: int) -> None:
        while len(self.calls) < times:
            await asyncio.sleep(0)

    async def _enter(self, method: str, titles: list[bytes], context: Any) -> None:
        self.calls.append((method, titles))
        self.time_left.append(context.time_remaining())
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1
        match self.failures.get(method):
            case grpc.StatusCode() as code:
                await context.abort(code, "on purpose")
            case Exception() as error:
                raise error

    def add_to(self, server: grpc.aio.Server) -> None:
        methods: Any = {
            "Get": grpc.unary_unary_rpc_method_handler(self.get),
            "BatchGet": grpc.unary_unary_rpc_method_handler(self.batch_get),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))


@dataclass(frozen=True)
class Library:
    """A running shelf, and the calls of its method `Get`, which batch."""

    shelf: Shelf
    calls: BatchingCalls[bytes, bytes]
    channel: Any
    client: SpanCapture
    server: SpanCapture
    running: grpc.aio.Server

    def ask(self, *titles: bytes) -> list[asyncio.Task[bytes]]:
        """Starts lookups in one turn of the loop."""
        return [asyncio.create_task(self.get(title)) for title in titles]

    async def get(self, title: bytes, **options: Any) -> bytes:
        with service_errors():
            return await self.calls(title, **options)

    async def first_in_flight(self) -> asyncio.Task[bytes]:
        """A lookup that is in its handler, where it waits."""
        [first] = self.ask(b"first")
        await self.shelf.until_called(1)
        return first

    async def settle(self) -> None:
        """Makes a call alone, with an answer after which every call that was sent before has arrived."""
        await self.channel.unary_unary(f"/{SERVICE}/Absent")(b"").code()


@asynccontextmanager
async def library(
    *,
    late_seconds: float = NEVER,
    max_waiting: int = 1000,
    open_: bool = True,
    client_interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> AsyncIterator[Library]:
    shelf, client, server = Shelf(), SpanCapture("client"), SpanCapture("server")
    if open_:
        shelf.open.set()
    async with (
        serve(shelf, server) as (address, running),
        open_channel(
            address,
            service=SERVICE,
            repeatable=(),
            limit=20.0,
            telemetry=client.telemetry,
            interceptors=client_interceptors,
        ) as channel,
    ):
        tracer = client.telemetry.tracer_provider.get_tracer("test")
        calls = BatchingCalls(method(channel), tracer, max_waiting, late_seconds=late_seconds)
        yield Library(shelf, calls, channel, client, server, running)


@asynccontextmanager
async def serve(shelf: Shelf, capture: SpanCapture) -> AsyncIterator[tuple[str, grpc.aio.Server]]:
    """Serves the shelf on a free port. Yields its address and the server."""
    health = Health(SERVICE, always_healthy)
    await health._publish(SERVING)
    built = build_server(services={SERVICE: shelf.add_to}, health=health, telemetry=capture.telemetry)
    async with start_server(built) as address:
        yield address, built


def method(channel: Any, key: Any = lambda _request: None) -> BatchMethod[bytes, bytes]:
    return BatchMethod(
        GET,
        single=channel.unary_unary(f"/{GET}"),
        batch=channel.unary_unary(f"/{BATCH_GET}"),
        join=b",".join,
        split=split,
        key=key,
    )


def split(response: bytes, requests: Sequence[bytes]) -> list[bytes | ServiceError]:
    return [book or NoBook(title) for book, title in zip(response.split(b","), requests, strict=True)]
