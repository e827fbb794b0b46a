"""The client side of gRPC tracing: one span and one duration for every call, however it ends.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/. grpc.aio registers an interceptor for one arity only, hence
four classes. None of them awaits the call: they hand it back at once and end the span in its done callback.
So cancelling the caller cancels the RPC, and a stream that is left early still ends its span.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry.propagate import inject
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from opentelemetry.trace import Span

    from meshkit.telemetry.calls import Attributes, MeasuredMethod
    from meshkit.telemetry.provider import Telemetry

WRITE_FAILED = "Internal error from Core"
"""The details that grpc.aio gives a call, with INTERNAL, as soon as a write to it fails.

The server has ended the call: the status that it sent is on its way, and the done callbacks run again when it is here.
"""

STATUS_SECONDS = 1.0
"""How long that status may take; then the call has ended with INTERNAL."""


def tracing_interceptors(telemetry: Telemetry, target: str) -> list[grpc.aio.ClientInterceptor]:
    """The interceptors that make client spans for a channel to `target`; they belong first, outside all others."""
    calls = _Calls(telemetry, target)
    return [_UnaryUnary(calls), _UnaryStream(calls), _StreamUnary(calls), _StreamStream(calls)]


class _Calls:
    """Begins and ends the spans of one channel's calls."""

    def __init__(self, telemetry: Telemetry, target: str) -> None:
        self._tracer = telemetry.tracer_provider.get_tracer("meshkit", schema_url=semconv.SCHEMA_URL)
        self._calls = telemetry.client_calls
        self._server = _server(target)
        self._methods: dict[str | bytes, MeasuredMethod] = {}

    async def traced(
        self,
        continuation: Callable[[Any, Any], Awaitable[Any]],
        details: Any,
        request: object,
    ) -> Any:
        """Starts the call under a new span and hands it back; the span ends when the call is done."""
        method = self._methods.get(details.method) or self._method(details.method)
        span = self._tracer.start_span(method.name, kind=SpanKind.CLIENT, attributes=method.attributes)
        context = set_span_in_context(span)
        began, ended = method.begin(), False

        def end(code: str) -> None:
            nonlocal ended
            if not ended:
                ended = True
                method.end(began, code, context)
                _end(span, code)

        def done(call: Any) -> None:
            code, details = _now(call.code()).name, _now(call.details())
            if details == WRITE_FAILED:
                asyncio.get_running_loop().call_later(STATUS_SECONDS, end, code)
            else:
                end(code)

        # The interceptors within run in this task, so they and what they log belong to the span.
        token = otel_context.attach(context)
        try:
            call = await continuation(details._replace(metadata=_with_trace(details.metadata)), request)
        except BaseException as error:
            end(_code_of_exception(error))
            raise
        finally:
            otel_context.detach(token)
        call.add_done_callback(done)
        return call

    def _method(self, method: str | bytes) -> MeasuredMethod:
        name = (method.decode() if isinstance(method, bytes) else method).lstrip("/")
        return self._methods.setdefault(method, self._calls.method(name, self._server))


class _Interceptor:
    def __init__(self, calls: _Calls) -> None:
        self._calls = calls


class _UnaryUnary(_Interceptor, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._calls.traced(continuation, client_call_details, request)


class _UnaryStream(_Interceptor, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._calls.traced(continuation, client_call_details, request)


class _StreamUnary(_Interceptor, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._calls.traced(continuation, client_call_details, request_iterator)


class _StreamStream(_Interceptor, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._calls.traced(continuation, client_call_details, request_iterator)


def _server(target: str) -> Attributes:
    """Server address and port of a gRPC target such as `dns:///pricing:50052` or `127.0.0.1:50052`."""
    address, _, port = target.rpartition("/")[2].rpartition(":")
    if not port.isdecimal():
        return {semconv.SERVER_ADDRESS: target}
    return {semconv.SERVER_ADDRESS: address, semconv.SERVER_PORT: int(port)}


def _with_trace(metadata: grpc.aio.Metadata | None) -> grpc.aio.Metadata:
    """A copy of the caller's metadata with the current span's context added (W3C Trace Context)."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return grpc.aio.Metadata(*(metadata or ()), *carrier.items())


def _code_of_exception(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return str(error.code().name)
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "UNKNOWN"


def _now(result: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine of a call that is done answers: it has nothing left to wait for."""
    try:
        result.send(None)
    except StopIteration as answered:
        return answered.value
    raise AssertionError("the call is not done")


def _end(span: Span, code: str) -> None:
    span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, code)
    if code in semconv.CLIENT_ERRORS:
        span.set_attribute(semconv.ERROR_TYPE, code)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
