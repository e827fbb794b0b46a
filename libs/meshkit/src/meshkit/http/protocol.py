"""One HTTP/1.1 connection: what only a parser can see. ASGI applications do the rest.

A request whose client disconnects is cancelled. A client that closes only its own direction of the connection counts
as disconnected: TCP sends the same FIN for both, and RFC 9112 (section 9.5) asks for prompt closure of both sides.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from meshkit import addresses
from meshkit.addresses import HostPort
from meshkit.http.exchange import Exchange
from meshkit.http.flow import Flow, WriteProgress
from meshkit.http.framing import LINE_END, Framing
from meshkit.http.refusals import (
    DISCONNECTED,
    FIELDS_TOO_LARGE,
    HEAD_TIMEOUT,
    INVALID_HTTP,
    UNKNOWN_CODING,
    Refused,
)

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from meshkit.http.connections import Connections
    from meshkit.http.limits import Limits
    from meshkit.http.refusals import Refusal, Renderer
    from meshkit.lifecycle import Stop

log = logging.getLogger("meshkit.http")

ABSOLUTE = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]*://([^/?#]*)")
"""The beginning of an absolute target, such as `http://edge:8080`."""

FRAMING_FIELDS = frozenset({b"content-length", b"expect", b"transfer-encoding"})
"""The fields that say whether and how a body follows."""


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 within limits, which loses no request that is half read while the process drains.

    At shutdown uvicorn closes a connection unless a request runs on it; a running request closes it at its end. This
    class keeps a connection open while a request is half read or waits in the pipeline. Only the last response has
    `Connection: close`.

    It cancels a request whose client disconnects before the response starts. While the pipeline is full, nothing is
    read from the connection, so the disconnect is noticed only after some responses.

    A request that is refused for its bytes is the last one of its connection, and gets its response after those of
    earlier requests. Bytes that do not even begin like a request belong to the request that runs, and cancel it.

    Some clients ask to switch to another protocol; Java's does so in every request without TLS. They get a response in
    HTTP/1.1 (RFC 9110, section 7.8). httptools would drop the body of their request.
    """

    flow: Flow

    def __init__(
        self,
        *args: Any,
        stop: Stop,
        renderer: Renderer,
        limits: Limits,
        connections: Connections,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.renderer = renderer
        self.progress = WriteProgress()
        self._stop = stop
        self._limits = limits
        self._connections = connections
        self._framing = Framing(limits)
        self._exchange: Exchange | None = None
        self._refusal: Refusal | None = None
        self._unparsed = b""
        self._codings: list[bytes] = []
        self._content_length = self._trailers = self._dropped = 0
        self._deadline = 0.0
        self._is_lingering = self._lingers_after_response = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Counts the connection, which may be one too many. Shows IPv4 addresses as such, on any socket."""
        super().connection_made(transport)
        self.client = self.client and (addresses.unmapped(self.client[0]), self.client[1])
        self.server = self.server and (addresses.unmapped(self.server[0]), self.server[1])
        self.flow = Flow(transport)  # pyright: ignore[reportIncompatibleVariableOverride]
        self._set_deadline(self._limits.head_seconds)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the request of the disconnected client, and drops what would keep this object alive."""
        super().connection_lost(exc)
        self._connections.remove(self)
        if self._exchange:
            self._exchange.cancel(DISCONNECTED)
            self._exchange.disconnect()
        self._exchange = None
        self._unparsed = b""
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment] # as in uvicorn

    def data_received(self, data: bytes) -> None:
        """Parses bytes, which may belong to several requests."""
        if self._refusal or self._is_lingering:
            self._drop(len(data))
        else:
            self._parse(self._unparsed + data if self._unparsed else data)

    def on_message_begin(self) -> None:
        """Begins a request."""
        super().on_message_begin()
        self._codings = []
        self._content_length = self._trailers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Adds a field. Trailers are dropped: merged, they would be fields of the head (RFC 9110, section 6.5.1)."""
        if self._framing.in_body:
            self._trailers += 1
            count = self._trailers
        else:
            name = name.lower()
            self.headers.append((name, value))
            count = len(self.headers)
            if name in FRAMING_FIELDS:
                self._note(name, value)
        if count > self._limits.fields:
            raise Refused(FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Starts the request. A head that offers an upgrade is first parsed again without the offer, by `_decline`."""
        if self._offers_upgrade():
            return
        if self._codings:
            self._check_codings()
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        super().on_headers_complete()
        self._framing.end_head(self._content_length)
        if self.pipeline:  # uvicorn has paused reading
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """Adds a part of the body."""
        self._framing.body(len(body))
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Begins a chunk of the body."""
        self._framing.begin_chunk()

    def on_message_complete(self) -> None:
        """Ends a request. Its response may already be complete."""
        if self._offers_upgrade():
            return
        self._framing.end_message()
        super().on_message_complete()
        if not self.cycle.response_complete:
            self._connections.set_busy(self)

    def on_response_complete(self) -> None:
        """Starts the next request of the pipeline, and parses further ones."""
        self.server_state.total_requests += 1
        if self._exchange:
            self._exchange.flush()
        self._exchange = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()  # which a large body may have paused
        self._after_response()
        if self._unparsed and len(self.pipeline) <= self._limits.pipelined // 4:
            self._parse(self._unparsed)
            if not self._unparsed:
                self.flow.release()
        if self._stop.requested.is_set():
            self.shutdown()

    def shutdown(self) -> None:
        """Closes the connection if no request is left on it."""
        if not self._exchange and self._is_between_requests():
            self.transport.close()

    def is_last(self) -> bool:
        """Whether the process stops, and no other request has been received."""
        return self._stop.requested.is_set() and not self.pipeline and self._is_between_requests()

    def linger_after_response(self) -> None:
        """After the present response, reads and drops what the client still sends, then closes the connection."""
        self._lingers_after_response = True

    def has_backlog(self) -> bool:
        """Whether a response waits for the client to read, or requests wait behind the one that runs."""
        return bool(self.pipeline) or self.transport.get_write_buffer_size() > 0

    def abort(self) -> None:
        """Closes the connection at once."""
        self.transport.abort()

    def check_time(self, now: float) -> None:
        """Closes the connection if the client neither sends a request nor reads a response in time."""
        unsent = self.transport.get_write_buffer_size()
        if self.progress.stalled_seconds(unsent, now) >= self._limits.write_seconds:
            self.transport.abort()
        elif not self._exchange and now >= self._deadline:
            self._expire()

    def _expire(self) -> None:
        if self._is_lingering:
            self.transport.abort()
        elif self._framing.in_head:
            self._refuse(HEAD_TIMEOUT)
        else:
            self.transport.close()

    def _parse(self, data: bytes) -> None:
        """Parses one request at a time, until enough of them wait."""
        start, end, self._unparsed = 0, len(data), b""
        try:
            while start < end and len(self.pipeline) < self._limits.pipelined:
                start = self._parse_piece(data, start)
        except Refused as refused:
            self._refuse(refused.refusal)
        except HttpParserError as error:
            self._refuse(_refusal(error))
        else:
            self._keep(data[start:])

    def _keep(self, unparsed: bytes) -> None:
        if unparsed:
            self._unparsed = unparsed
            self.flow.hold()
        if self._stop.requested.is_set():
            self.shutdown()

    def _parse_piece(self, data: bytes, start: int) -> int:
        """Returns the end of the parsed piece. Skips empty lines before a request (RFC 9112, section 2.2)."""
        if not (self._framing.in_head or self._framing.in_body):
            if data[start] in LINE_END:
                return len(data) - len(data[start:].lstrip(LINE_END))
            self._set_deadline(self._limits.head_seconds)
        end = self._framing.piece(data, start)
        try:
            self.parser.feed_data(data if end - start == len(data) else memoryview(data)[start:end])
        except HttpParserUpgrade:  # or a CONNECT, which is a request like others
            if self._offers_upgrade():
                self._decline()
        self._framing.check_chunks()
        return end

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self._content_length = int(value.lstrip(b"0") or 0)  # because int() rejects more than 4300 digits
        elif name == b"transfer-encoding":
            self._codings.append(value.lower())
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True

    def _check_codings(self) -> None:
        """Raises Refused unless the body is chunked or has no coding (RFC 9112, section 6.1)."""
        if self.parser.get_http_version() == "1.0":
            raise Refused(INVALID_HTTP)
        if [coding for part in self._codings for coding in part.replace(b" ", b"").split(b",") if coding] != [
            b"chunked"
        ]:
            raise Refused(UNKNOWN_CODING)

    def _take_host_of_target(self) -> None:
        """Replaces Host by the host of an absolute target, which uvicorn drops (RFC 9112, section 3.2.2)."""
        if found := ABSOLUTE.match(self.url):
            self.headers[:] = [(name, found[1] if name == b"host" else value) for name, value in self.headers]

    def _offers_upgrade(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _decline(self) -> None:
        """Parses the head again, without the offer: after an offer the parser accepts no body."""
        request = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(b"".join([b"%b %b HTTP/%b\r\n" % request, *fields, b"\r\n"]))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._exchange = Exchange(self, cycle)
        run: Any = partial(self._exchange.run, app)  # uvicorn has types of its own
        super()._start_asgi_task(cycle, run)

    def _after_response(self) -> None:
        if self._lingers_after_response:
            self._linger()
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal:
            self._respond(self._refusal)
        else:
            limits = self._limits
            self._set_deadline(limits.head_seconds if self._framing.in_head else limits.keep_alive_seconds)
            self._connections.set_idle(self)

    def _refuse(self, refusal: Refusal) -> None:
        """Ends the parsing. The refusal is the response of the request that is half read, after earlier responses."""
        self._refusal = refusal
        self.flow.release()
        is_garbage = refusal is INVALID_HTTP and not self._framing.has_line
        if self._framing.in_body and self.pipeline:
            self.pipeline.popleft()  # the refused request, which is the newest
        elif self._exchange and (self._framing.in_body or is_garbage):
            self._cancel(self._exchange, refusal)
        elif self._framing.in_body:  # its response is complete
            self._linger()
        elif not self._exchange:
            self._respond(refusal)

    def _cancel(self, exchange: Exchange, refusal: Refusal) -> None:
        exchange.cancel(refusal)
        if exchange.cycle.response_started:
            exchange.flush()
            self._exchange = None
            self._linger()

    def _respond(self, refusal: Refusal) -> None:
        """Responds to the request that is half read."""
        peer = str(HostPort(*self.client)) if self.client else ""
        log.info("refused a request from %s: %s", peer, refusal.detail, extra={"status": refusal.status, "peer": peer})
        fields, body = self.renderer.response(refusal)
        head = [STATUS_LINE[refusal.status], *(b"%b: %b\r\n" % field for field in fields)]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", body]))
        self._linger()

    def _linger(self) -> None:
        """Reads and drops bytes within limits, because closing a connection with unread data loses its response."""
        self._is_lingering = True
        self._unparsed = b""
        self._set_deadline(self._limits.discard_seconds)
        self._connections.set_idle(self)
        self.flow.release()
        if not self.transport.is_closing() and self.transport.can_write_eof():  # TLS cannot end one direction
            self.transport.write_eof()

    def _drop(self, length: int) -> None:
        self._dropped += length
        if self._dropped > self._limits.discard_bytes:
            self.transport.close()

    def _is_between_requests(self) -> bool:
        return not (self._framing.in_head or self._framing.in_body or self._unparsed or self._refusal)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds


def _refusal(error: HttpParserError) -> Refusal:
    """The refusal that one of our callbacks has raised, or that of an error of llhttp."""
    if isinstance(error.__context__, Refused):
        return error.__context__.refusal
    return UNKNOWN_CODING if str(error) == "Invalid `Transfer-Encoding` header value" else INVALID_HTTP
