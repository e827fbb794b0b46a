"""One request while its application runs: how it is cancelled, and whether its response is the last one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from meshkit.http.flow import HeadAndBody
from meshkit.http.refusals import CANCELLED_FOR

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from meshkit.http.flow import WriteProgress
    from meshkit.http.refusals import Refusal, Renderer


class Owner(Protocol):
    """The connection of the request."""

    renderer: Renderer
    progress: WriteProgress

    def is_last(self) -> bool:
        """Whether the connection closes after the response of this request."""
        ...

    def linger_after_response(self) -> None:
        """Lets the client read the response although it still sends."""


class Exchange:
    """One request and its response.

    Attributes:
        cycle: uvicorn's part of it.
    """

    def __init__(self, owner: Owner, cycle: RequestResponseCycle) -> None:
        self.cycle = cycle
        self._owner = owner
        self._task: asyncio.Task[None] | None = None
        self._refusal: Refusal | None = None
        self._writes = HeadAndBody(cycle.transport)
        cycle.transport = cast("asyncio.Transport", self._writes)

    def cancel(self, refusal: Refusal) -> None:
        """Cancels the request if its response has not started. The response is then the refusal, and the last one."""
        if self.cycle.response_started:
            self.disconnect()
        elif not self._refusal:
            self._refusal = refusal
            if self._task:
                self._cancel_task()

    def flush(self) -> None:
        """Passes on the head of the response, if that still waits for a body."""
        self._writes.flush()

    def disconnect(self) -> None:
        """Lets the app know that nobody reads its response."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""

        async def send_response(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._start_response(message, send)
            else:
                self._owner.progress.written += len(message.get("body", b""))
                await send(message)

        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        if self._refusal:  # before the task had started
            self._cancel_task()
        try:
            await app(scope, receive, send_response)
        except asyncio.CancelledError:
            if self.cycle.response_started:
                self._break_off()
            elif self._refusal:
                await self._respond(self._refusal, send)
            else:
                raise

    def _break_off(self) -> None:
        """Closes the connection, because the process stops, unless the response is complete."""
        if not self.cycle.response_complete:
            self.disconnect()
            self.cycle.transport.close()

    def _cancel_task(self) -> None:
        if self._task and self._refusal:
            scope = cast("Scope", self.cycle.scope)  # uvicorn has a type of its own
            scope["state"][CANCELLED_FOR] = self._owner.renderer.error(self._refusal)
            self._task.cancel()

    async def _start_response(self, message: Message, send: Send) -> None:
        if self._refusal or self._is_unasked() or self._owner.is_last():
            fields = [field for field in message.get("headers", ()) if field[0].lower() != b"connection"]
            message = {**message, "headers": [*fields, (b"connection", b"close")]}
        await send(message)
        if not self.cycle.keep_alive and (self._refusal or self.cycle.more_body):
            self.cycle.keep_alive = True  # so that uvicorn leaves the connection open
            self._owner.linger_after_response()

    def _is_unasked(self) -> bool:
        """Whether the client waits for `100 Continue`: its body, or its next request, may follow (RFC 9110, 10.1.1)."""
        return self.cycle.waiting_for_100_continue and self.cycle.more_body

    async def _respond(self, refusal: Refusal, send: Send) -> None:
        fields, body = self._owner.renderer.response(refusal)
        start = {"type": "http.response.start", "status": refusal.status, "headers": list(fields)}
        await self._start_response(start, send)
        await send({"type": "http.response.body", "body": body})
