"""What surrounds every request: its budget, its size limit, its trace headers, its log line, and the last resort.

Plain ASGI. It runs inside the HTTP server span that FastAPI opens.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from fastapi.exceptions import HTTPException
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from starlette.datastructures import Headers, MutableHeaders

from api_edge.clients import Timing, timings
from api_edge.domain import InvalidTimeout, ShuttingDown
from api_edge.rest.problem_details import http_problem, internal_error, service_problem
from api_edge.rest.server import CANCELLED_FOR
from meshkit.deadline import budget, remaining

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("api_edge.access")

MAX_BODY_BYTES = 1024 * 1024
DISCARD_BYTES, DISCARD_SECONDS = 64 * MAX_BODY_BYTES, 5.0
"""How much of a body that is too large is read and dropped, so that its sender can read why."""

MAX_TIMEOUT_MS = 30_000
READ_SECONDS, ORDER_SECONDS = 2.0, 5.0
API = "/v1/"
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""The paths that machines poll: no spans, no log lines."""

TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes"
TOO_SLOW = "the body did not come within the time budget of the request"


class TraceHeaders:
    """Tells every caller but probes where its trace is, and logs one line for each request.

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
        started, status, noted = time.perf_counter(), 0, list[Timing]()
        token = timings.set(noted)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), noted, time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # with a client that is gone, this tells the span and the log how it ended
            if not status:
                error = scope["state"].get(CANCELLED_FOR) or ShuttingDown()
                await service_problem(scope["path"], error)(scope, receive, send_with_headers)
        except Exception as error:
            if status:
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            get_current_span().record_exception(error)
            await internal_error(scope["path"])(scope, receive, send_with_headers)
        finally:
            timings.reset(token)
            _log(scope, status, time.perf_counter() - started)

    def _add_headers(self, headers: MutableHeaders, noted: list[Timing], seconds: float) -> None:
        context = get_current_span().get_span_context()
        headers["Server-Timing"] = ", ".join([*map(_metric, noted), f"total;dur={seconds * 1000:.1f}"])
        if not context.is_valid:  # with OTEL_SDK_DISABLED
            return
        trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
        headers["traceresponse"] = f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"
        headers["X-Trace-Id"] = trace_id
        if self._trace_url and context.trace_flags.sampled:
            headers["Link"] = f'<{self._trace_url.replace("{trace_id}", trace_id)}>; rel="trace"'


class Limits:
    """Opens the time budget of a request; refuses bodies of more than 1 MiB, and those that do not come within it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app inside (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if _declared_length(headers) > MAX_BODY_BYTES:
            problem = http_problem(scope["path"], 413, TOO_LARGE)
            if "expect" in headers:  # who asks first sends nothing: what comes next on the connection is no body
                problem.headers["Connection"] = "close"
            else:
                await _discard(receive)
            await problem(scope, receive, send)
            return
        try:
            allowed = _budget(scope, headers)
        except InvalidTimeout as error:
            await service_problem(scope["path"], error)(scope, receive, send)
            return
        with allowed:
            await self._app(scope, _limited(receive), send)


def _budget(scope: Scope, headers: Headers) -> AbstractContextManager[None]:
    if not scope["path"].startswith(API):
        return nullcontext()
    match headers.getlist("x-request-timeout-ms"):
        case []:
            return budget(ORDER_SECONDS if scope["path"].startswith("/v1/orders") else READ_SECONDS)
        case [given] if re.fullmatch("[0-9]{1,5}", given) and 1 <= int(given) <= MAX_TIMEOUT_MS:
            return budget(int(given) / 1000)
    raise InvalidTimeout


def _declared_length(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length.lstrip("0") or 0) if length.isdecimal() else 0  # Python reads no more than 4300 digits


def _limited(receive: Receive) -> Receive:
    """Watches a body while it comes in: how long that takes, and its size if it does not declare it."""
    total = 0

    async def limited() -> Message:
        nonlocal total
        message = await _in_time(receive)
        total += len(message.get("body", b""))
        if total > MAX_BODY_BYTES:
            if message.get("more_body"):
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


def _log(scope: Scope, status: int, seconds: float) -> None:
    method, path, duration = scope["method"], scope["path"], round(seconds * 1000, 2)
    host, port = scope["client"] or ("", 0)
    fields = {"method": method, "path": path, "status": status, "duration_ms": duration, "peer": f"{host}:{port}"}
    log.info("%s %s %s", method, path, status, extra=fields)
