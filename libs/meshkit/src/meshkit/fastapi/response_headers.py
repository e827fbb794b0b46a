"""ASGI middleware that adds headers to every response which lacks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

API_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
"""For the responses of an API: no browser guesses another type, and nobody stores what depends on the moment."""


class ResponseHeaders:
    """Adds `headers` to every response, except for those that it has with another value."""

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str] = API_HEADERS) -> None:
        self._app = app
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = message.get("headers", ())
                present = dict(fields)
                message["headers"] = [*fields, *[field for field in self._headers if field[0] not in present]]
            await send(message)

        await self._app(scope, receive, send_with_headers)
