"""ASGI middleware that responds to HEAD as to GET, without the body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

WITHOUT_BODY = frozenset({204, 205, 304})
"""The statuses whose responses have no body, and may lack a Content-Length (RFC 9110, section 6.4.1)."""

LAST = {"type": "http.response.body", "body": b"", "more_body": False}


class HeadAsGet:
    """Runs the app for a HEAD as for a GET, and sends the head of its response.

    A response without Content-Length may be a stream without an end, so its app is cancelled after the head.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await Head(send, cast("asyncio.Task[None]", asyncio.current_task())).run(
                self._app, {**scope, "method": "GET"}, receive
            )
        else:
            await self._app(scope, receive, send)


class Head:
    """The head of one response, whose app runs in `task`."""

    def __init__(self, send: Send, task: asyncio.Task[None]) -> None:
        self._send = send
        self._task = task
        self._is_stream = False

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Runs the app until it has responded, or has begun a stream."""
        try:
            await app(scope, receive, self._send_head)
        except asyncio.CancelledError:
            if not self._is_stream or self._task.uncancel():  # somebody else has cancelled the request
                raise
        else:
            if self._is_stream:
                self._task.uncancel()

    async def _send_head(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
            if not _has_end(message):
                await self._end_stream()
        elif not (self._is_stream or message.get("more_body")):
            await self._send(LAST)

    async def _end_stream(self) -> None:
        self._is_stream = True
        await self._send(LAST)
        self._task.cancel()
        await asyncio.sleep(0)  # raises if this is the app's own task, else its group cancels this one


def _has_end(start: Message) -> bool:
    """Whether the head of a response says that its body ends."""
    has_length = any(name.lower() == b"content-length" for name, _ in start.get("headers", ()))
    return has_length or start["status"] in WITHOUT_BODY
