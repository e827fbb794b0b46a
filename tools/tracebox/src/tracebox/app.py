"""Builds and runs tracebox: one store, the OTLP port that fills it, and the HTTP port that reads it.

Both ports listen before the ready line is printed, and HTTP responds only when OTLP does. On SIGTERM or
SIGINT the HTTP port closes first, then the OTLP port; exports in flight are stored.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette

from meshkit import addresses
from meshkit.addresses import HostPort
from tracebox.hosts import OwnHosts
from tracebox.page import Page
from tracebox.parameters import InvalidQuery
from tracebox.query import QueryApi, error_response, not_found
from tracebox.receiver import build_receiver
from tracebox.store import TraceStore

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp, Receive, Scope, Send

    from tracebox.settings import Settings

_GRACE_SECONDS = 3


class AddressInUse(Exception):
    """A listen address is in use or not an address of this machine; the text names it and its variable."""

    def __init__(self, address: str, variable: str, error: OSError) -> None:
        super().__init__(f"cannot listen on {address}: {addresses.reason(error)}; set {variable} to another address")


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises AddressInUse before anything is served."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())  # uvicorn raises the signal again when it has stopped
    with _listen(settings.query_listen, "TRACEBOX_QUERY_LISTEN") as query_socket:
        # grpc opens its port itself and only logs a failure, so try first
        _listen(settings.otlp_listen, "TRACEBOX_OTLP_LISTEN").close()
        asyncio.run(_serve(settings, query_socket))


def _listen(address: str, variable: str) -> socket.socket:
    try:
        return addresses.listen(address)
    except OSError as error:
        raise AddressInUse(address, variable, error) from error


async def _serve(settings: Settings, query_socket: socket.socket) -> None:
    store = TraceStore(settings.max_spans, settings.max_bytes)
    receiver = build_receiver(store)
    otlp = addresses.resolve(settings.otlp_listen)
    otlp = otlp._replace(port=receiver.add_insecure_port(str(otlp)))
    await receiver.start()
    try:
        query = HostPort(*query_socket.getsockname()[:2])
        print(f"tracebox: OTLP/gRPC on {otlp}, traces on http://{query}", flush=True)
        await http_server(store, settings).serve([query_socket])
    finally:
        await receiver.stop(_GRACE_SECONDS)


def build_app(store: TraceStore) -> Starlette:
    """The HTTP application that reads the store."""
    app = Starlette(
        routes=[*QueryApi(store).routes(), *Page(store).routes()],
        exception_handlers={InvalidQuery: error_response, 404: not_found, 405: not_found},
    )
    app.router.redirect_slashes = False
    return app


def http_server(store: TraceStore, settings: Settings) -> uvicorn.Server:
    """The server of the query API and the page. It has no socket yet."""
    configured = addresses.parse(settings.query_listen).host.lower()
    app: ASGIApp = OwnHosts(build_app(store), {configured, *settings.allowed_hosts})

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
