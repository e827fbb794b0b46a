"""Runs an ASGI app on Granian under meshkit's lifecycle: HTTP/2 and HTTP/1.1, without trailers, so no gRPC.

`pip install 'meshkit[granian]'`. Not for production: see docs/http2-and-gateways.md.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from meshkit.extras import require
from meshkit.http.in_flight import InFlight
from meshkit.http.limits import DEFAULT_LIMITS
from meshkit.http.server import BACKLOG

require("granian")

# isort: split
from granian._granian import SocketHolder
from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP2Settings
from granian.log import LogLevels
from granian.server import embed

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from meshkit.http.limits import Limits
    from meshkit.http.refusals import Renderer
    from meshkit.lifecycle import Stop
    from meshkit.tls import TlsFiles


class Server(embed.Server):
    """Granian's embedded server, on a socket that listens already. Its own would share the port with any process."""

    _shd: Any

    def __init__(self, target: ASGIApp, listener: socket.socket, **options: Any) -> None:
        super().__init__(target, interface=Interfaces.ASGINL, websockets=False, **options)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        backlog = [self.backlog] if sys.platform == "linux" else []
        holder: Any = SocketHolder  # whose stub has no constructor
        self._shd = holder(self._listener.detach(), False, *backlog)


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    renderer: Renderer,
    listener: socket.socket,
    stop: Stop,
    grace_seconds: float,
    limits: Limits = DEFAULT_LIMITS,
    tls: TlsFiles | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """Serves during the block, and then stops. See `meshkit.http.server.serving`; of the limits it has only some."""
    requests = InFlight(app, renderer=renderer, stop=stop)
    server = await asyncio.to_thread(Server, requests, listener, **_options(limits, tls))  # it reads files
    server_task = asyncio.create_task(server.serve())
    try:
        yield server_task
    finally:
        server.stop()  # type: ignore[no-untyped-call] # of Granian
        await requests.end(server_task, grace_seconds)


def _options(limits: Limits, tls: TlsFiles | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "backlog": BACKLOG,
        "backpressure": limits.connections,
        "http2_settings": HTTP2Settings(max_headers_size=limits.head_bytes),
        "log_level": LogLevels.error,
        "log_dictconfig": {"incremental": True, "handlers": {}, "loggers": {}},  # else it closes our handlers
    }
    if tls:
        options |= {"ssl_cert": tls.certificate, "ssl_key": tls.key, "ssl_protocol_min": SSLProtocols.tls12}
    return options
