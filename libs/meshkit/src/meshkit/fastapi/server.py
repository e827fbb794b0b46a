"""Runs an app on uvicorn under meshkit's lifecycle: the signals are ours, and no request that was begun is lost.

A request whose client has gone is cancelled. Gone is whoever closes the connection, or only its own direction of it:
TCP says both by the same FIN, and RFC 9112 (section 9.5) asks for prompt closure of both sides.
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
"""Above the idle time-out of the usual load balancers (60 s), or they reuse connections that are being closed."""

CANCEL_SECONDS = 1.0
"""How long requests that were cancelled may take to end."""

CANCELLED_FOR = "cancelled_for"
"""In the ASGI scope's `state`: the error for which the connection cancelled a request that had no answer yet."""


class ClientDisconnected(AppError, Cancelled):
    """The client disconnected before its request had a response."""

    def __init__(self) -> None:
        super().__init__("the client closed its connection")


class InvalidHttp(AppError, InvalidArgument):
    """What the client sent is not HTTP."""

    def __init__(self) -> None:
        super().__init__("what came is no HTTP/1.1 request")


class ShuttingDown(AppError, Unavailable):
    """The process is ending; another one may have the answer."""

    def __init__(self) -> None:
        super().__init__("this server is shutting down")


class DrainingProtocol(HttpToolsProtocol):
    """HTTP/1.1 that ends its connections while the process drains, without losing a request that it began to read.

    uvicorn closes a connection at shutdown unless a request runs on it, and a request that runs closes it afterwards.
    This one keeps a connection as long as a request is half read or waits in the pipeline: only the answer after
    which nothing is left says `Connection: close`.

    It cancels a request whose client goes before its answer begins. With other requests waiting behind it in the
    pipeline nothing more is read from the connection, so that their client is missed when the first has its answer.
    So it does where no HTTP follows, be it in the request's own body; the answer is then 400, and the last one.

    A client that offers to speak another protocol, as Java's does with every request in plain text, is answered in
    this one (RFC 9110, section 7.8). httptools would drop the body of its request.
    """

    def __init__(self, *args: Any, stop: Stop, problems: Problems, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop = stop
        self._problems = problems
        self._reading = False
        self._unanswered: tuple[asyncio.Task[None], Scope] | None = None
        self._broken: InvalidHttp | None = None
        self.app = partial(self._answered, self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, and whatever it waits for is cancelled."""
        super().connection_lost(exc)
        self._cancel(ClientDisconnected())

    def data_received(self, data: bytes) -> None:
        """Bytes have come, of one request or of some."""
        self._unset_keepalive_if_required()
        left = memoryview(data)
        try:
            while left:
                left = left[self._parsed(left) :]
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """The first bytes of a request have come."""
        self._reading = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request has come. One with an offer comes once more, without it."""
        if not self._offers_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of a request has come. It may have been answered before that."""
        if self._offers_upgrade():
            return
        self._reading = False
        super().on_message_complete()
        if self._stop.requested.is_set():
            self.shutdown()

    def on_response_complete(self) -> None:
        """A request is answered; the next one of the pipeline begins."""
        super().on_response_complete()
        if self._stop.requested.is_set():
            self.shutdown()

    def shutdown(self) -> None:
        """Closes the connection if no request is left on it."""
        if not (self._reading or self._is_answering()):
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP as a problem, in place of uvicorn's plain text, and ends the connection."""
        self._broken = InvalidHttp()
        if self._is_answering():
            self._cancel(self._broken)
            return
        peer = ":".join(map(str, self.client or ()))
        log.info("%s from %s", msg, peer, extra={"status": 400, "peer": peer})
        response = self._problems.of_error("/", self._broken)
        head = [STATUS_LINE[400], *(b"%b: %b\r\n" % header for header in response.raw_headers)]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", response.body]))
        self.transport.close()

    def _parsed(self, data: memoryview) -> int:
        """How many bytes the parser took: all of them, or up to the end of a head with an offer, or of a CONNECT."""
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
        """Begins the request anew: the parser that saw the offer takes no body any more."""
        request = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"".join([b"%b %b HTTP/%b\r\n" % request, *fields, b"\r\n"]))

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # the newest one; None before the first request
        return cycle is not None and not cycle.response_complete

    def _cancel(self, error: ServiceError) -> None:
        if self._unanswered:
            task, scope = self._unanswered
            scope["state"].setdefault(CANCELLED_FOR, error)
            task.cancel()

    async def _answered(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._unanswered = None
                nothing_left = not (self._reading or self.pipeline)
                if self._broken or (self._stop.requested.is_set() and nothing_left):
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        self._unanswered = cast("asyncio.Task[None]", asyncio.current_task()), scope
        if self._broken:
            self._cancel(self._broken)
        try:
            await app(scope, receive, send_last)
        except asyncio.CancelledError:
            if CANCELLED_FOR not in scope["state"]:
                raise


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
        listener = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        reason = str(text).partition(" (")[0]  # Python adds the address, in a form of its own
        raise AddressInUse(f"cannot listen on {listen}: {reason}") from error
    # Connections inherit it. Without, each answer on one that is kept alive waits 40 ms for a delayed ACK: uvicorn
    # writes head and body apart, and asyncio (not so uvloop) knows no TCP socket in one that Python made like this.
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
        problems: render what is not HTTP.
        listener: a listening socket; closed at the end.
        stop: when to end; a second request skips the waiting.
        drain_seconds: how long to go on accepting, with `Connection: close` on every answer.
        grace_seconds: how long requests in flight may take after that; then they are cancelled.
    """
    host, port = listener.getsockname()[:2]
    log.info("listening on %s:%s", host, port, extra={"port": port})
    server = Server(_config(app, stop, problems))
    serving = asyncio.create_task(server.serve([listener]))
    await _until(stop.requested, serving)
    if not serving.done():
        log.info("draining")
        await stop.pause(drain_seconds)
        server.should_exit = True
        await _until(stop.hurried, serving, grace_seconds)
        await _give_up(server)
    await serving
    log.info("stopped")


def _config(app: FastAPI, stop: Stop, problems: Problems) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(DrainingProtocol, stop=stop, problems=problems)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        log_level=logging.ERROR,  # it warns of each client that sends no HTTP, or would rather speak another protocol
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        reset_contextvars=True,  # else a request has the budget and the trace of one before it on its connection
    )


async def _until(event: asyncio.Event, serving: asyncio.Task[None], seconds: float | None = None) -> None:
    """Waits for an event, for `seconds`, or for the server to end by itself."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({serving, waiting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def _give_up(server: Server) -> None:
    """Ends what is left: cancels the requests, lets them say so, and closes the connections."""
    server.force_exit = True
    left = set(server.server_state.tasks)
    for task in left:
        task.cancel()
    if left:
        log.warning("cancelling requests", extra={"requests": len(left)})
        await asyncio.wait(left, timeout=CANCEL_SECONDS)
    for connection in list(server.server_state.connections):
        connection.transport.close()
