"""ASGI middleware that takes the paths of a service from the app inside, before its spans, limits and headers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshkit.fastapi.prefix import route_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp as ASGIApp  # noqa: PLC0414 - for those who do not know starlette
    from starlette.types import Receive, Scope, Send


class RpcPaths:
    """Serves the paths below `/{service}/` by another app, such as that of `meshkit.connect.service.serve_rpcs`.

    Args:
        app: serves all other paths.
        service: the full name of the service.
        build: makes the other app at the first of its requests, in a thread, because connectrpc takes 7 MB and 0.4 s
            to import.
    """

    def __init__(self, app: ASGIApp, *, service: str, build: Callable[[], ASGIApp]) -> None:
        self._app = app
        self._prefix = f"/{service}/"
        self._build = build
        self._lock = asyncio.Lock()
        self._rpcs: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one of the apps (ASGI)."""
        if scope["type"] == "http" and route_path(scope).startswith(self._prefix):
            await (self._rpcs or await self._load())(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _load(self) -> ASGIApp:
        async with self._lock:
            if self._rpcs is None:
                self._rpcs = await asyncio.to_thread(self._build)
            return self._rpcs
