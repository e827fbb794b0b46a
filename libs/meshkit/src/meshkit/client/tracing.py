"""The client side of gRPC tracing: one span and one duration for every call, however it ends.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/. The span starts with the call and ends in its done callback.
This is not an interceptor, because gRPC runs interceptors in a task that may be cancelled before it starts. Nothing
here awaits the call, so cancelling the caller cancels the RPC, and a stream that is abandoned still ends its span.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from opentelemetry import context as otel_context
from opentelemetry.propagate import inject
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from meshkit import targets
from meshkit.client.batch_traces import take_batch
from meshkit.client.delegate import result_of
from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from opentelemetry.trace import Span

    from meshkit.client.types import Call, CallOptions, Concern, Metadata, Multicallable, Request
    from meshkit.telemetry.provider import Telemetry
    from meshkit.telemetry.rpc_metrics import Attributes

WRITE_FAILED = "Internal error from Core"
"""The details that grpc.aio gives a call, with INTERNAL, as soon as a write fails.

The server has ended the call: the status that it sent is on its way. When it is here grpc.aio 1.82 runs the done
callbacks again, and 1.85 tells nobody.
"""

STATUS_INTERVAL, STATUS_LOOKS = 0.01, 100
"""Seconds between two looks for that status, and how many there are; then the call has ended with INTERNAL."""


def tracing(telemetry: Telemetry, target: str) -> Concern:
    """Creates the client spans of a channel to `target`."""
    tracer = telemetry.tracer_provider.get_tracer("meshkit", schema_url=semconv.SCHEMA_URL)
    server = _server(target)

    def surround(path: str, multicallable: Multicallable[Request, Call]) -> Multicallable[Request, Call]:
        method = telemetry.client_calls.method(path.lstrip("/"), server)

        def start(request: Request, /, **options: Unpack[CallOptions]) -> Call:
            """Starts the call under a new span, which ends when the call is done."""
            batch = take_batch()
            links = batch.links if batch else None
            span = tracer.start_span(method.name, kind=SpanKind.CLIENT, attributes=method.attributes, links=links)
            if batch:
                batch.link_to(span.get_span_context())
            context = set_span_in_context(span)
            began_at, ended = method.begin(), False

            def end(code: str, details: str | None = None) -> None:
                nonlocal ended
                if not ended:
                    ended = True
                    method.end(began_at, code, context)
                    _end(span, code, details)

            # The tasks that gRPC creates for the call, such as its request reader, run within the span.
            token = otel_context.attach(context)
            try:
                options["metadata"] = _with_trace(options.get("metadata"))
                call = multicallable(request, **options)
            except BaseException:
                end("UNKNOWN")
                raise
            finally:
                otel_context.detach(token)
            call.add_done_callback(lambda call: _end_with_status(call, end))
            return call

        return start

    return surround


def _end_with_status(call: grpc.aio.Call, end: Callable[[str, str | None], None], looks: int = STATUS_LOOKS) -> None:
    """Ends a call that is done, once the status is its server's."""
    code, details = result_of(call.code()).name, result_of(call.details())
    if details == WRITE_FAILED and looks:
        asyncio.get_running_loop().call_later(STATUS_INTERVAL, _end_with_status, call, end, looks - 1)
    else:
        end(code, details)


def _server(target: str) -> Attributes:
    """Server address and port of a gRPC target such as `dns:///pricing:50052` or `127.0.0.1:50052`."""
    match targets.servers(target):
        case [server]:
            return {semconv.SERVER_ADDRESS: server.host, semconv.SERVER_PORT: server.port}
    return {semconv.SERVER_ADDRESS: target}


def _with_trace(metadata: Metadata | None) -> grpc.aio.Metadata:
    """A copy of the caller's metadata with the current span's context in it (W3C Trace Context)."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return grpc.aio.Metadata(*(pair for pair in metadata or () if pair[0] not in carrier), *carrier.items())


def _end(span: Span, code: str, details: str | None) -> None:
    span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, code)
    if code in semconv.CLIENT_ERRORS:
        span.set_attribute(semconv.ERROR_TYPE, code)
        span.set_status(Status(StatusCode.ERROR, details or None))
    span.end()
