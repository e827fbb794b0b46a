"""What surrounds every request: the limits of its body, its trace headers, its log line, and the last resort.

Plain ASGI. It runs inside the HTTP server span that FastAPI opens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fastapi.exceptions import HTTPException
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from starlette.datastructures import Headers, MutableHeaders

from api_edge.domain import ShuttingDown
from api_edge.rest.paths import PROBES
from api_edge.rest.problem_details import http_problem, internal_error, service_problem
from api_edge.rest.server import CANCELLED_FOR
from api_edge.timings import Timing, timings
from meshkit.deadline import remaining

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("api_edge.access")

MAX_BODY_BYTES = 1024 * 1024
DISCARD_BYTES, DISCARD_SECONDS = 64 * MAX_BODY_BYTES, 5.0
"""How much of a body that is too large is read and dropped, so that its sender can read why."""

TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes"
TOO_SLOW = "the body did not come within the time budget of the request"


class TraceHeaders:
    """Adds the trace to every response but those of probes, and logs one line for each request.

    `traceresponse` (W3C Trace Context, level 2), whose flags say whether the trace was sampled, `X-Trace-Id`,
    `Server-Timing`, and for a trace that was sampled, and so can be looked at, `Link: …; rel="trace"`.
    An exception that nothing else handled becomes a problem here.
    """

    def __init__(self, app: ASGIApp, trace_url: str) -> None:
        self._app = app
        self._trace_url = trace_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app inside (ASGI)."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._trace_url)
        token = timings.set(exchange.timings)
        try:
            await exchange.run(self._app)
        finally:
            timings.reset(token)
            exchange.log()


class Exchange:
    """One request and its response, which this sends with the trace headers."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, trace_url: str) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._trace_url = trace_url
        self._start = time.perf_counter()
        self._status = 0
        self.timings: list[Timing] = []

    async def run(self, app: ASGIApp) -> None:
        """Runs the app. A request that fails or is cancelled before its response has begun gets a problem."""
        try:
            await app(self._scope, self._receive, self._send_with_headers)
        except asyncio.CancelledError:  # the client may be gone: the span and the log still show how it ended
            if not self._status:
                error = self._scope["state"].get(CANCELLED_FOR) or ShuttingDown()
                await self._respond(service_problem(self._scope["path"], error))
        except Exception as error:
            if self._status:
                raise
            log.exception("%s %s failed", self._scope["method"], self._scope["path"])
            get_current_span().record_exception(error)
            await self._respond(internal_error(self._scope["path"]))

    def log(self) -> None:
        """Writes the line of the access log."""
        method, path, status = self._scope["method"], self._scope["path"], self._status
        host, port = self._scope["client"] or ("", 0)
        duration = round(self._milliseconds(), 2)
        fields = {"method": method, "path": path, "status": status, "duration_ms": duration, "peer": f"{host}:{port}"}
        log.info("%s %s %s", method, path, status, extra=fields)

    async def _respond(self, response: ASGIApp) -> None:
        await response(self._scope, self._receive, self._send_with_headers)

    async def _send_with_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._add_headers(MutableHeaders(scope=message))
        await self._send(message)

    def _add_headers(self, headers: MutableHeaders) -> None:
        context = get_current_span().get_span_context()
        headers["Server-Timing"] = ", ".join([*map(_metric, self.timings), f"total;dur={self._milliseconds():.1f}"])
        if not context.is_valid:  # with OTEL_SDK_DISABLED, and of the documentation
            return
        trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
        headers["traceresponse"] = f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"
        headers["X-Trace-Id"] = trace_id
        if self._trace_url and context.trace_flags.sampled:
            headers["Link"] = f'<{self._trace_url.replace("{trace_id}", trace_id)}>; rel="trace"'

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._start) * 1000


class BodyLimits:
    """Refuses bodies of more than 1 MiB, and those that do not come within the budget of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app inside (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _declared_length(headers := Headers(scope=scope)) > MAX_BODY_BYTES:
            problem = http_problem(scope["path"], 413, TOO_LARGE)
            if "expect" in headers:  # a client that asks first sends no body: its next bytes would be read as one
                problem.headers["Connection"] = "close"
            else:
                await _discard(receive)
            await problem(scope, receive, send)
        else:
            await self._app(scope, _limited(receive), send)


def _declared_length(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length.lstrip("0") or 0) if length.isdecimal() else 0  # Python reads no more than 4300 digits


def _limited(receive: Receive) -> Receive:
    """Watches a body while it comes in: how long that takes, and its size if it does not declare it."""
    total, complete = 0, False

    async def limited() -> Message:
        nonlocal total, complete
        if complete:  # waits for the client to disconnect, however long the response takes
            return await receive()
        message = await _in_time(receive)
        complete = not message.get("more_body")
        total += len(message.get("body", b""))
        if total > MAX_BODY_BYTES:
            if not complete:
                await _discard(receive)
            raise HTTPException(413, TOO_LARGE)
        return message

    return limited


async def _in_time(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(remaining()):
            return await receive()
    except TimeoutError:
        raise HTTPException(408, TOO_SLOW, {"Connection": "close"}) from None  # as RFC 9110 has it, section 15.5.9


async def _discard(receive: Receive) -> None:
    """Reads what is left of a body, within limits: closing a connection with unread data loses the answer on it."""
    left, more = DISCARD_BYTES, True
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message.get("more_body", False)


def _metric(timing: Timing) -> str:
    return f'{timing.service};desc="{timing.method}";dur={timing.milliseconds:.1f}'
