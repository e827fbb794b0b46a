"""The server side of gRPC tracing: one span, one duration and one log line for every RPC, however it ends.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/. The span's status comes from the RPC's code, also for
`abort_with_status`, unhandled exceptions, deadlines and cancellation.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
from opentelemetry import context as otel_context
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from meshkit.server.context import CallContext, Request, Response
    from meshkit.server.types import Behavior, Concern
    from meshkit.telemetry.provider import Telemetry
    from meshkit.telemetry.rpc_metrics import MeasuredMethod

log = logging.getLogger("meshkit.rpc")

TRANSIT = 0.05
"""Seconds of network delay to assume when distinguishing a deadline from a cancellation."""


def tracing(telemetry: Telemetry) -> Concern:
    """Creates the server spans of known methods."""

    def surround(method: str, behavior: Behavior[Request, Response]) -> Behavior[Request, Response]:
        name = method.lstrip("/")
        return _trace(name, behavior, _tracer(telemetry), telemetry.server_calls.method(name))

    return surround


def unknown_method_tracing(telemetry: Telemetry) -> Concern:
    """Creates the server spans of unknown methods. The metrics count them all as one method."""

    def surround(method: str, behavior: Behavior[Request, Response]) -> Behavior[Request, Response]:
        name = method.lstrip("/")
        return _trace(name, behavior, _tracer(telemetry), telemetry.server_calls.method(semconv.OTHER))

    return surround


def _tracer(telemetry: Telemetry) -> Tracer:
    return telemetry.tracer_provider.get_tracer("meshkit", schema_url=semconv.SCHEMA_URL)


def _trace(
    name: str, behavior: Behavior[Request, Response], tracer: Tracer, method: MeasuredMethod
) -> Behavior[Request, Response]:
    known = method.name == name
    common = method.attributes if known else {**method.attributes, semconv.RPC_METHOD_ORIGINAL: name}

    async def respond(context: CallContext[Request, Response]) -> Response | None:
        parent = extract(_carrier(context))
        attributes = {**common, **_peer(context.peer())}
        span = tracer.start_span(name if known else semconv.GRPC, parent, SpanKind.SERVER, attributes)
        # Never detached, because each RPC has its own task and context.
        current = set_span_in_context(span, parent)
        otel_context.attach(current)
        start, budget, code = method.begin(), context.time_remaining(), "UNKNOWN"
        try:
            response = await behavior(context)
            code = _cancellation(context, budget) if await context.is_lost() else context.code_name()
        except grpc.aio.AbortError:
            code = context.code_name()
            raise
        except asyncio.CancelledError:
            code = _cancellation(context, budget)
            raise
        finally:
            seconds = method.end(start, code, current)
            _end(span, code)
            _log(name, code, seconds, context.peer())
        return response

    return respond


def _carrier(context: CallContext[Request, Response]) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    return {key: value for key, value in metadata if isinstance(value, str)}


def _peer(peer: str) -> dict[str, str | int]:
    """Client address and port of a gRPC peer such as `ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711`."""
    kind, _, rest = peer.partition(":")
    address, _, port = rest.rpartition(":")
    if kind not in {"ipv4", "ipv6"} or not port.isdecimal():
        return {semconv.CLIENT_ADDRESS: peer}
    address = address.removeprefix("%5B").removesuffix("%5D").strip("[]")
    return {semconv.CLIENT_ADDRESS: address, semconv.CLIENT_PORT: int(port)}


def _cancellation(context: CallContext[Request, Response], budget: float | None) -> str:
    """Why a call that arrived with `budget` seconds was cancelled: its deadline passed, or its client cancelled it.

    A client at its deadline sends only a cancellation, before the server's own clock reaches the deadline, because the
    deadline travels as a timeout, which is rounded up to three digits and counts from its arrival.
    """
    remaining = context.time_remaining()
    if remaining is None or budget is None:
        return "CANCELLED"
    return "DEADLINE_EXCEEDED" if remaining <= min(budget / 10, budget / 100 + TRANSIT) else "CANCELLED"


def _end(span: Span, code: str) -> None:
    span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, code)
    if code in semconv.SERVER_ERRORS:
        span.set_attribute(semconv.ERROR_TYPE, code)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _log(method: str, code: str, seconds: float, peer: str) -> None:
    level = logging.WARNING if code in semconv.SERVER_ERRORS else logging.INFO
    fields = {"method": method, "status": code, "duration_ms": round(seconds * 1000, 2), "peer": peer}
    log.log(level, "%s %s", method, code, extra=fields)
