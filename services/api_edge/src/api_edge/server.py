"""Runs the edge on uvicorn under meshkit's lifecycle: the signals are ours, and no request that was begun is lost."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meshkit.lifecycle import AddressInUse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

    from meshkit.lifecycle import Stop

KEEP_ALIVE_SECONDS = 75
"""Above the idle time-out of the usual load balancers (60 s), or they reuse connections that are being closed."""


class DrainingProtocol(HttpToolsProtocol):
    """HTTP/1.1 that ends its connections while the process drains: `Connection: close` on every answer.

    uvicorn closes a connection at shutdown unless a request runs on it. This one also keeps a connection that has
    begun to read a request, or has requests waiting in its pipeline.
    """

    def __init__(self, *args: Any, stop: Stop, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop = stop
        self._reading_head = False

    def on_message_begin(self) -> None:
        """The first bytes of a request have come."""
        self._reading_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request has come; its cycle begins or waits in the pipeline."""
        super().on_headers_complete()
        self._reading_head = False
        if self._stop.requested.is_set():
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Closes the connection if nothing was begun on it; else it closes after its last answer."""
        if not self._reading_head:
            super().shutdown()


class Server(uvicorn.Server):
    """A uvicorn that leaves the signals to meshkit.lifecycle."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def listen_socket(listen: str) -> socket.socket:
    """A listening socket for `host:port`. Raises AddressInUse."""
    host, _, port = listen.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=2048)
    except OSError as error:
        raise AddressInUse(f"cannot listen on {listen}: {error.strerror}") from error


async def serve(
    app: FastAPI, *, listener: socket.socket, stop: Stop, drain_seconds: float, grace_seconds: float
) -> None:
    """Serves until `stop` is requested, then drains and stops.

    Args:
        app: the application.
        listener: a listening socket; closed at the end.
        stop: when to end; a second request skips the waiting.
        drain_seconds: how long to go on accepting, with `Connection: close` on every answer.
        grace_seconds: how long requests in flight may take after that.
    """
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(DrainingProtocol, stop=stop)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(grace_seconds) or 1,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    stopping = asyncio.create_task(stop.requested.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await stop.pause(drain_seconds)
        server.should_exit = True
        await _stopped(server, serving, stop)
    await serving


async def _stopped(server: Server, serving: asyncio.Task[None], stop: Stop) -> None:
    hurry = asyncio.create_task(stop.hurried.wait())
    await asyncio.wait({serving, hurry}, return_when=asyncio.FIRST_COMPLETED)
    server.force_exit = stop.hurried.is_set()
    hurry.cancel()
