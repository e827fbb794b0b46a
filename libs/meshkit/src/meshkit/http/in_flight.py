"""An ASGI app for servers that cancel no request: what the protocol of uvicorn does here, as far as ASGI shows it.

A request is cancelled when its client disconnects before the response starts, and at the end of a stop. What ASGI does
not show stays that server's own: which heads it accepts, how many connections, and how long a client may take.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from meshkit import addresses
from meshkit.http.refusals import CANCELLED_FOR, DISCONNECTED
from meshkit.http.server import CANCEL_SECONDS, first

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from meshkit.http.refusals import Renderer
    from meshkit.lifecycle import Stop

log = logging.getLogger("meshkit.http")

DISCONNECT: Message = {"type": "http.disconnect"}

AHEAD = 4
"""How many messages of a body are read before the app asks for them. A disconnect is seen behind no more than these."""


class InFlight:
    """Runs an app, and knows its unfinished requests.

    Args:
        app: the app inside.
        renderer: makes the error of a request whose client disconnects.
        stop: once it is requested, every response of HTTP/1.1 has `Connection: close`.
    """

    def __init__(self, app: ASGIApp, *, renderer: Renderer, stop: Stop) -> None:
        self._app = app
        self._renderer = renderer
        self._stop = stop
        self._requests: set[RunningRequest] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI). Does nothing at the start and the end of a server."""
        if scope["type"] != "http":
            return
        for end in ("client", "server"):
            if scope.get(end):
                scope[end] = _address(*scope[end])
        request = RunningRequest(scope, receive, send, self._renderer, self._stop)
        self._requests.add(request)
        self._idle.clear()
        try:
            await request.run(self._app)
        finally:
            self._requests.discard(request)
            if not self._requests:
                self._idle.set()

    async def end(self, server_task: asyncio.Task[None], grace_seconds: float) -> None:
        """Waits for the end of a server that stops; cancels the requests after the grace, and at last the server.

        Raises the error of a server that failed.
        """
        settle_task = asyncio.create_task(self._settle(server_task))
        await first(self._stop.hurried, settle_task, grace_seconds)
        if not settle_task.done():
            settle_task.cancel()
            await self._cancel()
            await asyncio.wait({server_task}, timeout=CANCEL_SECONDS)
        server_task.cancel()
        await asyncio.wait({server_task})
        if not server_task.cancelled():
            server_task.result()

    async def _settle(self, server_task: asyncio.Task[None]) -> None:
        """Waits until the server has ended, or should have, because it has had no request for a while.

        Hypercorn waits for a connection whose last request was cancelled by its client.
        """
        while not server_task.done():
            await self._idle.wait()
            await asyncio.wait({server_task}, timeout=CANCEL_SECONDS)
            if self._idle.is_set():
                return

    async def _cancel(self) -> None:
        """Cancels the unfinished requests, and waits for their responses."""
        requests = set(self._requests)
        for request in requests:
            request.task.cancel()
        if requests:
            log.warning("cancelling requests", extra={"requests": len(requests)})
            await asyncio.wait({request.task for request in requests}, timeout=CANCEL_SECONDS)


class RunningRequest:
    """One request and its response.

    Attributes:
        task: runs the app, so that it is known whether the server or this module cancels it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, renderer: Renderer, stop: Stop) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._renderer = renderer
        self._stop = stop
        self._messages: asyncio.Queue[Message] = asyncio.Queue(AHEAD)
        self._disconnect: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._has_started = False

    async def run(self, app: ASGIApp) -> None:
        """Runs the app beside a task that receives. The server cancels it only if it has lost the connection."""
        self.task = asyncio.create_task(_awaited(app(self._scope, self._next_message, self._send_response)))
        watch_task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({self.task})
        except asyncio.CancelledError:
            self._lose(DISCONNECT)
            await asyncio.wait({self.task})
            if not self._has_started:  # else Hypercorn would send an error, and wait for a reader forever
                await self._send({"type": "http.response.start", "status": 500, "headers": []})
            raise
        finally:
            watch_task.cancel()
        if not self.task.cancelled():
            self.task.result()

    async def _watch(self) -> None:
        """Receives what the app will ask for, until the client disconnects."""
        while True:
            message = await self._receive()
            if message["type"] == DISCONNECT["type"]:
                break
            await self._messages.put(message)
        self._lose(message)

    def _lose(self, disconnect: Message) -> None:
        """Cancels the app if its response has not started; else it notices the disconnect when it receives."""
        if self._disconnect.done():
            return
        self._disconnect.set_result(disconnect)
        if not self._messages.full():  # else the app does not wait
            self._messages.put_nowait(disconnect)
        if not self._has_started:
            self._scope["state"][CANCELLED_FOR] = self._renderer.error(DISCONNECTED)
            self.task.cancel()

    async def _next_message(self) -> Message:
        if self._disconnect.done() and self._messages.empty():
            return self._disconnect.result()
        return await self._messages.get()

    async def _send_response(self, message: Message) -> None:
        if self._disconnect.done():
            return
        if message["type"] == "http.response.start":
            self._has_started = True
            if self._stop.requested.is_set() and self._scope["http_version"] < "2":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await self._send_or_lose(message)

    async def _send_or_lose(self, message: Message) -> None:
        """Sends a message, until the client disconnects: Hypercorn would wait for a reader forever."""
        sending = asyncio.ensure_future(self._send(message))
        try:
            either: set[asyncio.Future[Any]] = {sending, self._disconnect}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()


async def _awaited(coroutine: Awaitable[None]) -> None:
    await coroutine


def _address(host: str, port: int | str) -> tuple[str, int]:
    """The address of a peer, as ASGI and `meshkit.http.protocol` have it."""
    return addresses.unmapped(host), int(port)
