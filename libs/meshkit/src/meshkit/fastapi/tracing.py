"""ASGI middleware for the SERVER span and the metrics of every HTTP request, however it ends.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span. They are those of FastAPI's own
telemetry, which costs twice as much, and `client.address`.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry.trace import Link, NoOpTracer, SpanKind, StatusCode, set_span_in_context

from meshkit.fastapi.own_traces import CALLER
from meshkit.fastapi.prefix import prefix_of
from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from meshkit.telemetry import Telemetry

METHODS = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE"
"""The known methods, unless OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS has others."""

SENSITIVE = ("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "sig", "X-Goog-Signature")
"""The parameters of a query whose values no span may have, by the conventions."""
HAS_SENSITIVE = re.compile("|".join(SENSITIVE))

PLAIN_QUERY = re.compile(r"[\w.~-]+=[\w.~-]*(?:&[\w.~-]+=[\w.~-]*)*", re.ASCII)
"""A query that is the same after it has been parsed and written again."""

PORTS = {"http": 80, "https": 443}
REQUEST = "meshkit.request"
"""The key in the ASGI scope of the request that is traced."""


class HttpTracing:
    """Opens the span of each request; `RouteScope` belongs inside all middleware.

    Args:
        app: the app inside.
        telemetry: whose spans and metrics the requests make.
        exclude: whether a request, by its ASGI scope, makes none.
    """

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry, exclude: Callable[[Scope], bool]) -> None:
        self._app = app
        self._exclude = exclude
        self._tracer = telemetry.tracer_provider.get_tracer("meshkit", schema_url=semconv.SCHEMA_URL)
        self._is_recording = not isinstance(self._tracer, NoOpTracer)  # as it is with OTEL_SDK_DISABLED
        self._metrics = telemetry.http_requests
        known = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "").strip() or METHODS
        self._methods = frozenset(method.strip() for method in known.split(","))
        self._fields = {name.lower().encode() for name in propagate.get_global_textmap().fields}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] != "http" or self._exclude(scope):
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in self._methods else semconv.OTHER
        parent = self._parent(scope)
        attributes = _attributes(scope, method) if self._is_recording else None
        span = self._tracer.start_span(_span_name(method), parent, SpanKind.SERVER, attributes, _links(scope))
        context = set_span_in_context(span, parent)
        request = TracedRequest(scope, method, span, context, self._metrics)
        token = otel_context.attach(context)
        try:
            await request.run(self._app, receive, send)
        finally:
            otel_context.detach(token)

    def _parent(self, scope: Scope) -> Context:
        carrier: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            if name in self._fields:
                carrier.setdefault(name.decode(), []).append(value.decode("latin-1"))
        if not carrier:
            return otel_context.Context()
        if len(carrier.get("traceparent", ())) > 1:
            del carrier["traceparent"]  # nobody knows which one is meant, so a new trace begins
        if "baggage" in carrier:
            carrier["baggage"] = [",".join(carrier["baggage"])]  # the propagator reads only the first value
        return propagate.extract(carrier, otel_context.Context())


class RouteScope:
    """Shows HttpTracing the ASGI scope in which the router notes its route: middleware may have copied the scope.

    The route has the prefix of its APIRouter, but not one that is given to `include_router`, nor the path of a mount.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if request := scope.get(REQUEST):
            request.scope = scope
        await self._app(scope, receive, send)


class TracedRequest:
    """A request that is traced.

    Attributes:
        scope: the ASGI scope that the router gets.
    """

    def __init__(self, scope: Scope, method: str, span: Any, context: Context, metrics: Any) -> None:
        self.scope = scope
        self._method, self._span, self._context, self._metrics = method, span, context, metrics
        self._prefix = prefix_of(scope).rstrip("/")
        self._start = perf_counter()
        self._status: int | None = None
        self._has_trailers = self._is_finished = self._is_disconnected = False

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        """Runs the app, and ends the span with the response."""
        scope = self.scope
        scope[REQUEST] = self
        self._metrics.begin(self._method, scope["scheme"])
        self._receive, self._send = receive, send
        try:
            await app(scope, self._receive_and_watch, self._send_and_watch)
            self._finish(ConnectionError() if self._is_disconnected else RuntimeError())
        except BaseException as error:
            self._finish(error)
            raise
        finally:
            del scope[REQUEST]  # else scope and request refer to each other, which only the garbage collector ends
            self.scope = {}

    async def _receive_and_watch(self) -> Message:
        message = await self._receive()
        self._is_disconnected |= message["type"] == "http.disconnect"
        return message

    async def _send_and_watch(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._has_trailers = message.get("trailers", False)
        await self._send(message)
        if self._is_last(message):
            self._finish()

    def _is_last(self, message: Message) -> bool:
        match message["type"]:
            case "http.response.body":
                return not (message.get("more_body") or self._has_trailers)
            case "http.response.trailers":
                return not message.get("more_trailers")
        return bool(message["type"] == "http.response.pathsend")

    def _finish(self, error: BaseException | None = None) -> None:
        """Ends the span, unless it has ended with the response."""
        if self._is_finished:
            return
        self._is_finished = True
        result = self._result(error)
        self._span.set_attributes(result)
        if semconv.ERROR_TYPE in result:
            self._span.set_status(StatusCode.ERROR)
        if route := result.get(semconv.HTTP_ROUTE):
            self._span.update_name(f"{_span_name(self._method)} {route}")
        labels = {**_labels(self.scope["scheme"], self._method, self.scope.get("http_version")), **result}
        self._metrics.end(self._method, self.scope["scheme"], perf_counter() - self._start, labels, self._context)
        self._span.end()

    def _result(self, error: BaseException | None) -> dict[str, AttributeValue]:
        result: dict[str, AttributeValue] = {}
        if path := getattr(self.scope.get("route"), "path_format", None):
            result[semconv.HTTP_ROUTE] = self._prefix + path
        if self._status is not None:
            result[semconv.HTTP_RESPONSE_STATUS_CODE] = self._status
        if error:
            result[semconv.ERROR_TYPE] = _type_name(error)
        elif self._status is None or self._status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            result[semconv.ERROR_TYPE] = str(self._status or "incomplete_response")
        return result


def _span_name(method: str) -> str:
    return "HTTP" if method == semconv.OTHER else method


@lru_cache
def _labels(scheme: str, method: str, version: str | None) -> Mapping[str, AttributeValue]:
    """The attributes of the span and of its duration."""
    protocol = {semconv.NETWORK_PROTOCOL_VERSION: version} if version else {}
    return {semconv.URL_SCHEME: scheme, semconv.HTTP_REQUEST_METHOD: method, **protocol}


def _attributes(scope: Scope, method: str) -> dict[str, AttributeValue]:
    host: bytes | None = next((value for name, value in scope["headers"] if name == b"host"), None)
    server = _authority(host.decode("latin-1"), scope["scheme"]) if host is not None else _server(scope)
    labels = _labels(scope["scheme"], method, scope.get("http_version"))
    attributes = {**labels, **server, semconv.URL_PATH: scope["path"]}
    if client := scope.get("client"):
        attributes[semconv.CLIENT_ADDRESS] = client[0]
    if query := scope.get("query_string"):
        attributes[semconv.URL_QUERY] = _redacted(query.decode("latin-1"))
    if method != scope["method"]:
        attributes[semconv.HTTP_REQUEST_METHOD_ORIGINAL] = scope["method"]
    return attributes


@lru_cache
def _authority(authority: str, scheme: str) -> Mapping[str, AttributeValue]:
    try:
        url = urlsplit("//" + authority)
        port = PORTS.get(scheme) if url.port is None else url.port
    except ValueError:
        return {}
    if url.hostname is None or url.username is not None or url.path or url.query or url.fragment:
        return {}
    return {semconv.SERVER_ADDRESS: url.hostname, **({} if port is None else {semconv.SERVER_PORT: port})}


def _server(scope: Scope) -> Mapping[str, AttributeValue]:
    address, port = scope.get("server") or (None, None)
    if address is None:
        return {}
    return {semconv.SERVER_ADDRESS: address, **({} if port is None else {semconv.SERVER_PORT: port})}


def _redacted(query: str) -> str:
    if PLAIN_QUERY.fullmatch(query) and not HAS_SENSITIVE.search(query):
        return query
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode([(name, "REDACTED" if name in SENSITIVE else value) for name, value in pairs])


def _links(scope: Scope) -> list[Link]:
    caller = scope.get(CALLER)
    return [Link(caller)] if caller else []


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
