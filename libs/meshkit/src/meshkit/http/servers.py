"""The servers that run ASGI apps under meshkit's lifecycle: uvicorn, and two others for HTTP/2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.http import server as on_uvicorn

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from meshkit.http_settings import HttpServer

    Serving = Callable[..., AbstractAsyncContextManager[asyncio.Task[None]]]


def serving_on(server: HttpServer) -> Serving:
    """The `serving` of a server, with the parameters of `meshkit.http.server.serving`.

    Raises:
        ImportError: the extra of the server is not installed.
    """
    if server == "hypercorn":
        from meshkit.http import on_hypercorn  # noqa: PLC0415 - an extra

        return on_hypercorn.serving
    if server == "granian":
        from meshkit.http import on_granian  # noqa: PLC0415 - an extra

        return on_granian.serving
    return on_uvicorn.serving
