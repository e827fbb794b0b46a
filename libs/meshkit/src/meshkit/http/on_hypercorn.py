"""Runs an ASGI app on Hypercorn under meshkit's lifecycle: HTTP/2 and HTTP/1.1, with trailers, so gRPC too.

`pip install 'meshkit[hypercorn]'`. Not for production: see docs/http2-and-gateways.md.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from meshkit.extras import require
from meshkit.http.in_flight import InFlight
from meshkit.http.limits import DEFAULT_LIMITS
from meshkit.http.server import BACKLOG, CANCEL_SECONDS

require("hypercorn")

# isort: split
from hypercorn.asyncio import serve
from hypercorn.config import Config

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from meshkit.http.limits import Limits
    from meshkit.http.refusals import Renderer
    from meshkit.lifecycle import Stop
    from meshkit.tls import TlsFiles

log = logging.getLogger("meshkit.http.hypercorn")
log.setLevel(logging.ERROR)


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
    requests, ended = InFlight(app, renderer=renderer, stop=stop), asyncio.Event()
    config = _config(listener, limits, tls, grace_seconds)
    server_task = asyncio.create_task(serve(cast("Any", requests), config, shutdown_trigger=ended.wait, mode="asgi"))
    try:
        yield server_task
    finally:
        ended.set()
        await requests.end(server_task, grace_seconds)


def _config(listener: socket.socket, limits: Limits, tls: TlsFiles | None, grace_seconds: float) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.errorlog = log
    config.include_server_header = False
    config.keep_alive_timeout = limits.keep_alive_seconds
    config.keep_alive_max_requests = sys.maxsize  # else the 1001st of an HTTP/2 connection ends all others on it
    config.h11_max_incomplete_size = config.h2_max_header_list_size = limits.head_bytes
    config.graceful_timeout = grace_seconds + 2 * CANCEL_SECONDS  # InFlight cancels before that
    if tls:
        config.certfile, config.keyfile = str(tls.certificate), str(tls.key)
    return config
