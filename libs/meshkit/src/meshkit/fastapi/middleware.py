"""ASGI middleware for every request: body limits, trace headers, the log line, and a problem for unhandled exceptions.

It runs inside the HTTP server span (`tracing.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from fastapi.exceptions import HTTPException
from opentelemetry.trace import TraceFlags, format_span_id, format_trace_id, get_current_span

from meshkit.addresses import HostPort
from meshkit.current_span import current_span_context
from meshkit.deadline import remaining
from meshkit.fastapi.prefix import route_path
from meshkit.fastapi.refusal import discard, refuse
from meshkit.fastapi.server import CANCELLED_FOR, ShuttingDown
from meshkit.logs import log_line
from meshkit.timings import Timing, timings

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from meshkit.fastapi.problem_details import Problems

log = logging.getLogger("meshkit.access")

MAX_BODY_BYTES = 128 * 1024

TOO_SLOW = "the body did not arrive within the time budget of the request"


class TraceHeaders:
    """Adds the trace to every response, and logs one line for each request.

    The headers are `X-Trace-Id`, `Server-Timing`, `traceresponse` (W3C Trace Context, level 2), whose flags show
    whether the trace was sampled, and `Link: …; rel="trace"` if it was. An unhandled exception becomes a problem here.

    Args:
        app: the app inside.
        problems: renders unhandled exceptions and cancelled requests.
        trace_url: the URL of a trace's page, with `{trace_id}` in place of the id; empty: no links.
        probes: the paths of probes, whose requests get no headers and no log lines.
        access_log: the logger of the lines.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        problems: Problems,
        trace_url: str = "",
        probes: Container[str] = (),
        access_log: logging.Logger = log,
    ) -> None:
        self._app = app
        self._probes = probes
        self._logged = partial(LoggedRequest, problems=problems, trace_url=trace_url, access_log=access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] != "http" or route_path(scope) in self._probes:
            await self._app(scope, receive, send)
            return
        request = self._logged(scope, receive, send)
        token = timings.set(request.timings)
        try:
            await request.run(self._app)
        finally:
            timings.reset(token)
            request.log()


class LoggedRequest:
    """One request and its response, with the trace headers."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        problems: Problems,
        trace_url: str,
        access_log: logging.Logger,
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._problems = problems
        self._trace_url = trace_url
        self._access_log = access_log
        self._start = time.perf_counter()
        self._status = 0
        self.timings: list[Timing] = []

    async def run(self, app: ASGIApp) -> None:
        """Runs the app. Responds with a problem if the request fails or is cancelled before its response starts."""
        try:
            await app(self._scope, self._receive, self._send_with_headers)
        except asyncio.CancelledError:  # even if the client has disconnected, the span and the log get the status
            if self._status:
                raise
            error = self._scope["state"].get(CANCELLED_FOR) or ShuttingDown()
            await self._respond(self._problems.of_error(self._scope["path"], error))
        except Exception as error:
            if self._status:
                raise
            self._access_log.exception("%s %s failed", self._scope["method"], self._scope["path"])
            get_current_span().record_exception(error)
            await self._respond(self._problems.of_bug(self._scope["path"]))

    def log(self) -> None:
        """Writes the log line."""
        method, path, status = self._scope["method"], self._scope["path"], self._status
        duration = round(self._milliseconds(), 2)
        peer = str(HostPort._make(self._scope["client"] or ("", 0)))
        fields = {"method": method, "path": path, "status": status, "duration_ms": duration, "peer": peer}
        log_line(self._access_log, logging.INFO, "%s %s %s", method, path, status, fields=fields)

    async def _respond(self, response: ASGIApp) -> None:
        await response(self._scope, self._receive, self._send_with_headers)

    async def _send_with_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._headers()]
        await self._send(message)

    def _headers(self) -> Iterator[tuple[bytes, bytes]]:
        trace_id, span_id, _, flags, _, is_valid = current_span_context()  # a property costs a call
        metrics = [*map(_metric, self.timings), f"total;dur={self._milliseconds():.1f}"]
        yield b"server-timing", ", ".join(metrics).encode()
        if not is_valid:  # with OTEL_SDK_DISABLED, or on a path without spans
            return
        trace = format_trace_id(trace_id)
        yield b"traceresponse", f"00-{trace}-{format_span_id(span_id)}-{flags:02x}".encode()
        yield b"x-trace-id", trace.encode()
        if self._trace_url and flags & TraceFlags.SAMPLED:
            yield b"link", f'<{self._trace_url.replace("{trace_id}", trace)}>; rel="trace"'.encode()

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._start) * 1000


class BodyLimits:
    """Rejects bodies larger than `max_bytes`, and bodies that do not arrive within the budget of the request."""

    def __init__(self, app: ASGIApp, *, problems: Problems, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._problems = problems
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _declared_length(scope) > self._max_bytes:
            problem = self._problems.of_status(scope["path"], 413, too_large(self._max_bytes))
            await refuse(problem, scope, receive, send)
        else:
            await self._app(scope, _limited(receive, self._max_bytes), send)


def _declared_length(scope: Scope) -> int:
    length: bytes = dict(scope["headers"]).get(b"content-length", b"")
    return int(length.lstrip(b"0") or 0) if length.isdigit() else 0  # because int() rejects more than 4300 digits


def too_large(max_bytes: int) -> str:
    """The detail of the problem for a body above the limit."""
    return f"the body is larger than {max_bytes} bytes"


def _limited(receive: Receive, max_bytes: int) -> Receive:
    """Limits the time until the body has arrived, and its size in case the head declares none."""
    total, complete = 0, False

    async def limited() -> Message:
        nonlocal total, complete
        if complete:  # the app now waits for the client to disconnect, without a limit
            return await receive()
        message = await _in_time(receive)
        complete = not message.get("more_body")
        total += len(message.get("body", b""))
        if total > max_bytes:
            if not complete:
                await discard(receive)
            raise HTTPException(413, too_large(max_bytes))
        return message

    return limited


async def _in_time(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(remaining()):
            return await receive()
    except TimeoutError:
        raise HTTPException(408, TOO_SLOW, {"Connection": "close"}) from None  # as RFC 9110 requires, section 15.5.9


def _metric(timing: Timing) -> str:
    return f'{timing.service};desc="{timing.method}";dur={timing.milliseconds:.1f}'
