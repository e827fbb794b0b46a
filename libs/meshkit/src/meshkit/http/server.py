"""Runs an ASGI app on uvicorn under meshkit's lifecycle, which handles the signals."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

import uvicorn

from meshkit import addresses
from meshkit.http.connections import Connections
from meshkit.http.limits import DEFAULT_LIMITS
from meshkit.http.protocol import HttpProtocol
from meshkit.lifecycle import AddressInUse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import ASGIApp

    from meshkit.http.limits import Limits
    from meshkit.http.refusals import Renderer
    from meshkit.lifecycle import Stop
    from meshkit.tls import TlsFiles

log = logging.getLogger("meshkit.http")

BACKLOG = 2048
"""How many connections may wait until they are accepted."""

CANCEL_SECONDS = 1.0
"""How long cancelled requests may take to end."""


class Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to meshkit.lifecycle."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures no signals."""
        yield


def listen_socket(listen: str) -> socket.socket:
    """A listening socket for `host:port`. Raises AddressInUse."""
    try:
        listener = addresses.listen(listen)
    except OSError as error:
        raise AddressInUse(f"cannot listen on {listen}: {addresses.reason(error)}") from error
    # Connections inherit this option. Without it a response in several writes waits 40 ms for a delayed ACK on a
    # kept-alive connection. uvloop sets it itself; asyncio does not for this socket.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


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
    """Serves during the block, and then stops. Yields the task of the server, which may end by itself.

    Args:
        app: the application.
        renderer: renders the responses to requests that are refused for their bytes.
        listener: a listening socket, which is closed at the end.
        stop: once it is requested, every last response has `Connection: close`; in a hurry there is no grace.
        grace_seconds: how long requests in flight may take after the block, before they are cancelled.
        limits: what one client may take.
        tls: for HTTPS; plain text without.
    """
    connections = Connections(limits)
    protocol = partial(HttpProtocol, stop=stop, renderer=renderer, limits=limits, connections=connections)
    server = Server(_config(app, cast("type[asyncio.Protocol]", protocol), limits, tls))
    server_task, watch_task = asyncio.create_task(server.serve([listener])), asyncio.create_task(connections.watch())
    try:
        yield server_task
    finally:
        server.should_exit = True
        await first(stop.hurried, server_task, grace_seconds)
        await _cancel_requests(server)
        watch_task.cancel()
    await server_task


async def first(event: asyncio.Event, server: asyncio.Task[None], seconds: float | None = None) -> None:
    """Waits for an event, at most `seconds`, or until the server ends by itself."""
    event_task = asyncio.create_task(event.wait())
    await asyncio.wait({server, event_task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    event_task.cancel()


def _config(app: ASGIApp, protocol: type[asyncio.Protocol], limits: Limits, tls: TlsFiles | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        backlog=min(BACKLOG, limits.connections),  # asyncio accepts as many at once, before any of them is counted
        log_config=None,
        access_log=False,
        log_level=logging.ERROR,  # it warns about clients that send invalid HTTP or offer another protocol
        server_header=False,
        proxy_headers=False,  # by default it believes all clients on loopback: see meshkit.fastapi.proxies
        ssl_context_factory=(lambda _config, _default: tls.context("http/1.1")) if tls else None,
        reset_contextvars=True,  # else a request may get budget and trace of the previous one on its connection
    )


async def _cancel_requests(server: Server) -> None:
    """Cancels the remaining requests, waits for their responses, and closes the connections."""
    server.force_exit = True
    requests = set(server.server_state.tasks)
    for task in requests:
        task.cancel()
    if requests:
        log.warning("cancelling requests", extra={"requests": len(requests)})
        await asyncio.wait(requests, timeout=CANCEL_SECONDS)
    for connection in list(server.server_state.connections):
        connection.transport.close()
