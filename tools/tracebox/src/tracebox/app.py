"""Builds and runs tracebox: one store, the OTLP port that fills it, and the HTTP port that reads it.

Both ports listen before the ready line is printed, and HTTP responds only when OTLP does. On SIGTERM or
SIGINT the HTTP port closes first, then the OTLP port; exports in flight are stored.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette

from tracebox.page import Page
from tracebox.parameters import InvalidQuery
from tracebox.query import QueryApi, error_response, not_found
from tracebox.receiver import build_receiver
from tracebox.store import TraceStore

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from tracebox.settings import Settings

_GRACE_SECONDS = 3


class AddressInUse(Exception):
    """A listen address is in use or not an address of this machine; the text names it and its variable."""

    def __init__(self, address: str, variable: str, error: OSError) -> None:
        reason = str(error.strerror).partition(" (")[0]  # the text in brackets repeats the address
        super().__init__(f"cannot listen on {address}: {reason}; set {variable} to another address")


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises AddressInUse before anything is served."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())  # uvicorn raises the signal again when it has stopped
    with _listen(settings.query_listen, "TRACEBOX_QUERY_LISTEN") as query_socket:
        # grpc opens its port itself and only logs a failure, so try first
        _listen(settings.otlp_listen, "TRACEBOX_OTLP_LISTEN").close()
        asyncio.run(_serve(settings, query_socket))


def _listen(address: str, variable: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise AddressInUse(address, variable, error) from error


async def _serve(settings: Settings, query_socket: socket.socket) -> None:
    store = TraceStore(settings.max_spans, settings.max_bytes)
    receiver = build_receiver(store)
    otlp_port = receiver.add_insecure_port(settings.otlp_listen)
    await receiver.start()
    try:
        _print_ready_line(settings, otlp_port, query_socket)
        await _http_server(build_app(store)).serve([query_socket])
    finally:
        await receiver.stop(_GRACE_SECONDS)


def _print_ready_line(settings: Settings, otlp_port: int, query_socket: socket.socket) -> None:
    otlp_host, query_host = (address.rpartition(":")[0] for address in (settings.otlp_listen, settings.query_listen))
    query_port = query_socket.getsockname()[1]
    print(
        f"tracebox: OTLP/gRPC on {otlp_host}:{otlp_port}, traces on http://{query_host}:{query_port}",
        flush=True,
    )


def build_app(store: TraceStore) -> Starlette:
    """The HTTP application that reads the store."""
    app = Starlette(
        routes=[*QueryApi(store).routes(), *Page(store).routes()],
        exception_handlers={InvalidQuery: error_response, 404: not_found, 405: not_found},
    )
    app.router.redirect_slashes = False
    return app


def _http_server(app: Starlette) -> uvicorn.Server:
    async def without_cancellation(scope: Scope, receive: Receive, send: Send) -> None:
        # at the end of its grace, uvicorn cancels responses that clients still read, and would log a traceback
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return uvicorn.Server(
        uvicorn.Config(
            without_cancellation,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
