"""Runs an app on uvicorn under meshkit's lifecycle, which handles the signals. No request in flight is lost.

A request whose client disconnects is cancelled. A client that closes only its own direction of the connection counts
as disconnected: TCP sends the same FIN for both, and RFC 9112 (section 9.5) asks for prompt closure of both sides.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.datastructures import MutableHeaders
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from meshkit.config import DRAIN_SECONDS, GRACE_SECONDS
from meshkit.errors import Cancelled, InvalidArgument, Unavailable
from meshkit.fastapi.problem_details import AppError
from meshkit.lifecycle import AddressInUse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from meshkit.errors import ServiceError
    from meshkit.fastapi.problem_details import Problems
    from meshkit.lifecycle import Stop

log = logging.getLogger("meshkit.http")

KEEP_ALIVE_SECONDS = 75
"""Longer than the idle timeout of common load balancers (60 s); otherwise they reuse connections that are closing."""

CANCEL_SECONDS = 1.0
"""How long cancelled requests may take to end."""

CANCELLED_FOR = "cancelled_for"
"""The key in the ASGI scope's `state` of the error because of which the connection cancelled a request."""


class ClientDisconnected(AppError, Cancelled):
    """The client disconnected before its request had a response."""

    def __init__(self) -> None:
        super().__init__("the client closed its connection")


class InvalidHttp(AppError, InvalidArgument):
    """The client sent something other than HTTP."""

    def __init__(self) -> None:
        super().__init__("the bytes received are not an HTTP/1.1 request")


class ShuttingDown(AppError, Unavailable):
    """The process is stopping; another one may serve the request."""

    def __init__(self) -> None:
        super().__init__("this server is shutting down")


class DrainingProtocol(HttpToolsProtocol):
    """HTTP/1.1 that closes its connections while the process drains, without losing a request that is half read.

    At shutdown uvicorn closes a connection unless a request runs on it; a running request closes it at its end. This
    class keeps a connection open while a request is half read or waits in the pipeline. Only the last response has
    `Connection: close`.

    It cancels a request whose client disconnects before the response starts. While other requests wait behind it in the
    pipeline, nothing is read from the connection, so the disconnect is noticed only after the first response.
    It also cancels a request that is followed by bytes which are not HTTP, even within the request's own body. The
    response is then 400, and the last one.

    Some clients ask to switch to another protocol; Java's does so in every request without TLS. They get a response in
    HTTP/1.1 (RFC 9110, section 7.8). httptools would drop the body of their request.
    """

    def __init__(self, *args: Any, stop: Stop, problems: Problems, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop = stop
        self._problems = problems
        self._reading = False
        self._request: tuple[asyncio.Task[None], Scope] | None = None
        self._invalid_http: InvalidHttp | None = None
        self.app = partial(self._run_app, self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the request of the disconnected client."""
        super().connection_lost(exc)
        self._cancel(ClientDisconnected())

    def data_received(self, data: bytes) -> None:
        """Parses bytes, which may belong to several requests."""
        self._unset_keepalive_if_required()
        unread = memoryview(data)
        try:
            while unread:
                unread = unread[self._parse(unread) :]
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """Notes that a request is half read."""
        self._reading = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Starts the request. A head that offers an upgrade is first parsed again without the offer, by `_decline`."""
        if not self._offers_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Notes the end of a request. Its response may already be complete."""
        if self._offers_upgrade():
            return
        self._reading = False
        super().on_message_complete()
        if self._stop.requested.is_set():
            self.shutdown()

    def on_response_complete(self) -> None:
        """Starts the next request of the pipeline."""
        super().on_response_complete()
        if self._stop.requested.is_set():
            self.shutdown()

    def shutdown(self) -> None:
        """Closes the connection if no request is left on it."""
        if not (self._reading or self._is_answering()):
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Responds to invalid HTTP with a problem, instead of uvicorn's plain text, and closes the connection."""
        self._invalid_http = InvalidHttp()
        if self._is_answering():
            self._cancel(self._invalid_http)
            return
        peer = ":".join(map(str, self.client or ()))
        log.info("%s from %s", msg, peer, extra={"status": 400, "peer": peer})
        response = self._problems.of_error("/", self._invalid_http)
        head = [STATUS_LINE[400], *(b"%b: %b\r\n" % header for header in response.raw_headers)]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", response.body]))
        self.transport.close()

    def _parse(self, data: memoryview) -> int:
        """The number of parsed bytes: all, or up to the end of a head that offers an upgrade or is a CONNECT."""
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            if self._offers_upgrade():
                self._decline()
            return int(offer.args[0])
        return len(data)

    def _offers_upgrade(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _decline(self) -> None:
        """Parses the head again, without the offer: after an offer the parser accepts no body."""
        request = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"".join([b"%b %b HTTP/%b\r\n" % request, *fields, b"\r\n"]))

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # the newest one; None before the first request
        return cycle is not None and not cycle.response_complete

    def _cancel(self, error: ServiceError) -> None:
        if self._request:
            task, scope = self._request
            scope["state"].setdefault(CANCELLED_FOR, error)
            task.cancel()

    async def _run_app(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_response(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._request = None
                is_last = not (self._reading or self.pipeline)
                if self._invalid_http or (self._stop.requested.is_set() and is_last):
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        self._request = cast("asyncio.Task[None]", asyncio.current_task()), scope
        if self._invalid_http:
            self._cancel(self._invalid_http)
        try:
            await app(scope, receive, send_response)
        except asyncio.CancelledError:
            if CANCELLED_FOR not in scope["state"]:
                raise


class Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to meshkit.lifecycle."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures no signals."""
        yield


def listen_socket(listen: str) -> socket.socket:
    """A listening socket for `host:port`. Raises AddressInUse."""
    host, _, port = listen.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        reason = str(text).partition(" (")[0]  # because Python adds the address, in a different form
        raise AddressInUse(f"cannot listen on {listen}: {reason}") from error
    # Connections inherit this option. Without it each response on a kept-alive connection waits 40 ms for a delayed
    # ACK, because uvicorn writes head and body separately. uvloop sets it itself; asyncio does not for this socket.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(
    app: FastAPI,
    *,
    problems: Problems,
    listener: socket.socket,
    stop: Stop,
    drain_seconds: float = DRAIN_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """Serves until `stop` is requested, then drains and stops.

    Args:
        app: the application.
        problems: renders the response to invalid HTTP.
        listener: a listening socket, which is closed at the end.
        stop: ends the serving; a second request skips drain and grace.
        drain_seconds: how long to continue accepting, with `Connection: close` in every response.
        grace_seconds: how long requests in flight may take after that, before they are cancelled.
    """
    host, port = listener.getsockname()[:2]
    log.info("listening on %s:%s", host, port, extra={"port": port})
    server = Server(_config(app, stop, problems))
    server_task = asyncio.create_task(server.serve([listener]))
    await _wait(stop.requested, server_task)
    if not server_task.done():
        log.info("draining")
        await stop.pause(drain_seconds)
        server.should_exit = True
        await _wait(stop.hurried, server_task, grace_seconds)
        await _cancel_requests(server)
    await server_task
    log.info("stopped")


def _config(app: FastAPI, stop: Stop, problems: Problems) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(DrainingProtocol, stop=stop, problems=problems)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        log_level=logging.ERROR,  # it warns about clients that send invalid HTTP or offer another protocol
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        reset_contextvars=True,  # else a request may get budget and trace of the previous one on its connection
    )


async def _wait(event: asyncio.Event, server: asyncio.Task[None], seconds: float | None = None) -> None:
    """Waits for an event, at most `seconds`, or until the server ends by itself."""
    event_task = asyncio.create_task(event.wait())
    await asyncio.wait({server, event_task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    event_task.cancel()


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
