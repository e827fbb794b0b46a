"""The spans and metrics of HTTP requests are those of FastAPI's own telemetry, whatever a client sends."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from starlette.middleware import Middleware

from meshkit.fastapi.head import HeadAsGet
from meshkit.fastapi.middleware import BodyLimits, TraceHeaders
from meshkit.fastapi.own_traces import CALLER, OwnTraces
from meshkit.fastapi.prefix import PathPrefix
from meshkit.fastapi.problem_details import Problems
from meshkit.fastapi.server import listen_socket, serve
from meshkit.fastapi.tracing import HttpTracing, RouteScope, TracedRequest
from meshkit.lifecycle import Stop
from meshkit.telemetry.prometheus import MetricsPage
from meshkit.testing import SpanCapture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.sdk.trace import ReadableSpan
    from starlette.types import ASGIApp, Receive, Scope, Send

PROBLEMS = Problems(domain="test.example")
PARENT = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = PARENT[:-1] + "0"


class Link:
    """Links the current span to that of the caller, as an app with FastAPI's telemetry has to do it itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if caller := scope.get(CALLER):
            trace.get_current_span().add_link(caller)
        await self._app(scope, receive, send)


@dataclass(frozen=True)
class Shop:
    """A running server, and its spans."""

    port: int
    capture: SpanCapture
    waiting: asyncio.Event

    async def ask(self, request: str, *, leave: bool = False) -> bytes:
        """Sends a request and reads until the connection ends; with `leave`, disconnects while a handler waits."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request.encode("latin-1"))
        try:
            return await (self.waiting.wait() if leave else reader.read())  # type: ignore[return-value]
        finally:
            self.waiting.clear()
            writer.close()


def routes(app: FastAPI, waiting: asyncio.Event) -> None:
    """Routes for every kind of ending."""
    stream_routes(app, waiting)

    @app.get("/products/{sku}")
    async def product(sku: str, quantity: int = 1) -> dict[str, Any]:
        with trace.get_tracer("none").start_as_current_span("never recorded"):
            return {"sku": sku, "quantity": quantity}

    @app.post("/products")
    async def create() -> Response:
        return Response(status_code=201)

    @app.get("/bug")
    async def bug() -> None:
        raise LookupError("a bug")

    @app.get("/unavailable")
    async def unavailable() -> Response:
        return Response(status_code=503)


def stream_routes(app: FastAPI, waiting: asyncio.Event) -> None:
    """Routes whose responses take time."""

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise LookupError("after the response has begun")

        return StreamingResponse(parts())

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return StreamingResponse(parts())

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            await asyncio.Event().wait()

        return StreamingResponse(parts())

    @app.get("/slow")
    async def slow() -> None:
        waiting.set()
        await asyncio.Event().wait()

    @app.get("/untraced")
    async def untraced() -> None:
        """Makes no span."""


def is_untraced(scope: Any) -> bool:
    return bool(scope["path"].endswith("/untraced"))


def build(capture: SpanCapture, waiting: asyncio.Event, *, by_fastapi: bool) -> FastAPI:
    """The app with FastAPI's telemetry or with meshkit's."""
    inner = [
        Middleware(TraceHeaders, problems=PROBLEMS),
        Middleware(HeadAsGet),
        Middleware(BodyLimits, problems=PROBLEMS),
    ]
    telemetry = capture.telemetry
    if by_fastapi:
        app = FastAPI(
            telemetry={
                "tracer_provider": telemetry.tracer_provider,
                "meter_provider": telemetry.meter_provider,
                "operation_spans": False,
                "logs": False,
                "exclude": is_untraced,
            },
            middleware=[Middleware(Link), *inner],
        )
    else:
        tracing = Middleware(HttpTracing, telemetry=telemetry, exclude=is_untraced)
        off: Any = {"tracing": False, "metrics": False, "logs": False}
        app = FastAPI(telemetry=off, middleware=[tracing, *inner, Middleware(RouteScope)])
    routes(app, waiting)
    return app


@asynccontextmanager
async def shop(*, by_fastapi: bool, public: bool = False, prefix: str = "") -> AsyncIterator[Shop]:
    """A server that is stopped at the end."""
    capture, waiting, stop = SpanCapture("edge", page=MetricsPage()), asyncio.Event(), Stop()
    listener = listen_socket("127.0.0.1:0")
    app: ASGIApp = build(capture, waiting, by_fastapi=by_fastapi)
    app = OwnTraces(app) if public else app
    app = PathPrefix(app, prefix=prefix) if prefix else app
    serving = asyncio.create_task(serve(app, problems=PROBLEMS, listener=listener, stop=stop, drain_seconds=0))
    try:
        yield Shop(listener.getsockname()[1], capture, waiting)
    finally:
        stop.request()
        await serving


def request(line: str, *headers: str, host: str = "Host: shop.test:8080") -> str:
    return "\r\n".join([f"{line} HTTP/1.1", *([host] if host else []), "Connection: close", *headers, "", ""])


REQUESTS = {
    "ok": request("GET /products/TEA-0001"),
    "query": request("GET /products/TEA-0001?quantity=3&currency=EUR"),
    "odd query": request("GET /products/%C3%A9?quantity=3&&a=%20b+c&empty&x=%E2%82%AC&y=~_.-&z=a/b"),
    "query without values": request("GET /products/TEA-0001?a&b=&=c"),
    "sensitive query": request("GET /products/TEA-0001?quantity=3&sig=secret&X-Amz-Signature=secret"),
    "nearly sensitive query": request("GET /products/TEA-0001?design=1"),
    "422": request("GET /products/TEA-0001?quantity=many"),
    "404": request("GET /nowhere"),
    "405": request("PUT /products/TEA-0001"),
    "201": request("POST /products", "Content-Length: 0"),
    "HEAD": request("HEAD /products/TEA-0001"),
    "HEAD of a stream": request("HEAD /stream"),
    "OPTIONS": request("OPTIONS /products/TEA-0001"),
    "unknown method": request("PURGE /products/TEA-0001"),
    "500": request("GET /bug"),
    "503": request("GET /unavailable"),
    "broken stream": request("GET /broken"),
    "stream": request("GET /stream"),
    "no port": request("GET /products/A", host="Host: shop.test"),
    "IPv6": request("GET /products/A", host="Host: [::1]:8080"),
    "invalid port": request("GET /products/A", host="Host: shop.test:99999"),
    "invalid host": request("GET /products/A", host="Host: a@b/c"),
    "empty host": request("GET /products/A", host="Host: "),
    "HTTP/1.0": "GET /products/A HTTP/1.0\r\n\r\n",
    "untraced": request("GET /untraced"),
    "child": request("GET /products/A", PARENT),
    "child with state": request("GET /products/A", PARENT, "tracestate: a=1", "tracestate: b=2", "baggage: c=3"),
    "unsampled child": request("GET /products/A", UNSAMPLED),
    "invalid parent": request("GET /products/A", "traceparent: 00-zz-1-01"),
}


def described(span: ReadableSpan, own_port: int) -> dict[str, Any]:
    """What a span has, without the ids and the times of its own, and the port of its server."""
    context = span.context
    assert context
    is_child = span.parent is not None
    return {
        "name": span.name,
        "kind": span.kind,
        "parent": span.parent,
        "trace": (context.trace_id if is_child else None, context.trace_state, context.trace_flags),
        "attributes": {key: value for key, value in (span.attributes or {}).items() if value != own_port},
        "events": [(event.name, (event.attributes or {}).get("exception.type")) for event in span.events],
        "links": [(link.context, dict(link.attributes or {})) for link in span.links],
        "status": (span.status.status_code, span.status.description),
        "schema": span.instrumentation_scope and span.instrumentation_scope.schema_url,
    }


def measured(capture: SpanCapture) -> list[str]:
    """The lines of the HTTP metrics, without durations and without the buckets that they fall into."""
    assert capture.page
    _, page = capture.page.render("", "")
    lines = [line for line in page.decode().splitlines() if re.match(r"(# \w+ )?http_server_", line)]
    lines = [line for line in lines if "_sum{" not in line and "_created" not in line]
    return sorted(re.sub(r"\} .*", "}", line) if "_bucket{" in line else line for line in lines)


async def ask_everything(shop: Shop) -> None:
    for text in REQUESTS.values():
        await shop.ask(text)
    await shop.ask(request("GET /slow"), leave=True)


@pytest.mark.parametrize("options", [{}, {"public": True}, {"prefix": "/shop"}], ids=["plain", "public", "prefix"])
async def test_every_request_makes_the_span_and_the_metrics_of_fastapi(options: Any) -> None:
    results = []
    for by_fastapi in (True, False):
        async with shop(by_fastapi=by_fastapi, **options) as running:
            await ask_everything(running)
        results.append(([described(span, running.port) for span in running.capture.spans()], measured(running.capture)))
    (their_spans, their_metrics), (our_spans, our_metrics) = results
    for theirs, ours in zip(their_spans, our_spans, strict=True):
        assert ours["attributes"].pop("client.address") == "127.0.0.1"
        assert theirs == ours
    assert len(their_spans) > len(REQUESTS) - 3
    assert their_metrics == our_metrics
    assert their_metrics


async def test_two_parents_are_none() -> None:
    """As https://www.w3.org/TR/trace-context/ has it of an invalid `traceparent`; FastAPI's telemetry takes one."""
    async with shop(by_fastapi=False) as running:
        await running.ask(request("GET /products/A", PARENT, PARENT.replace("a3ce", "b4df"), "tracestate: a=1"))
    (span,) = running.capture.spans()
    assert span.context
    assert span.parent is None
    assert not span.context.trace_state


async def test_a_response_that_the_stop_cuts_off_is_a_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    async with shop(by_fastapi=False) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request("GET /endless").encode())
        await reader.readuntil(b"begun")
    assert await reader.read() == b"\r\n"  # without the last chunk
    writer.close()
    (span,) = running.capture.spans()
    assert span.attributes
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_ended_request_is_not_kept_for_the_garbage_collector() -> None:
    gc.collect()  # what other tests have left
    gc.disable()
    try:
        async with shop(by_fastapi=False) as running:
            for name in ("ok", "HEAD", "404", "stream"):
                await running.ask(REQUESTS[name])
        left = [each for each in gc.get_objects() if isinstance(each, TracedRequest)]
    finally:
        gc.enable()
    assert left == []
