"""The server side of gRPC tracing: one span, one duration and one log line for every RPC, however it ends.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/. The span's status comes from the RPC's code, also for
`abort_with_status`, unhandled exceptions, deadlines and cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

import grpc
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.trace import Link, SpanKind, get_current_span, set_span_in_context

from meshkit.batch_metadata import read_members
from meshkit.logs import log_line
from meshkit.server.batch_traces import end_span, links_to_others, start_spans
from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meshkit.batch_metadata import Members
    from meshkit.server.context import CallContext, Request, Response
    from meshkit.server.types import Behavior, Concern
    from meshkit.telemetry.provider import Telemetry
    from meshkit.telemetry.rpc_metrics import MeasuredMethod

log = logging.getLogger("meshkit.rpc")

Origin: TypeAlias = "tuple[Context, Sequence[Link], Members | None]"
"""Where the trace of a call begins: the parent of its span, the span's links, and the members of its batch."""

TRANSIT = 0.05
"""Seconds of network delay to assume when distinguishing a deadline from a cancellation."""


def tracing(telemetry: Telemetry, *, own_traces: bool = False) -> Concern:
    """Creates the server spans of known methods. With `own_traces` each begins a trace, with a link to the caller's."""
    origin_of = _own_trace if own_traces else _callers_trace

    def surround(method: str, behavior: Behavior[Request, Response]) -> Behavior[Request, Response]:
        name = method.lstrip("/")
        return trace_calls(name, behavior, telemetry, telemetry.server_calls.method(name), origin_of)

    return surround


def unknown_method_tracing(telemetry: Telemetry, *, own_traces: bool = False) -> Concern:
    """Creates the server spans of unknown methods. The metrics count them all as one method."""
    origin_of = _own_trace if own_traces else _callers_trace

    def surround(method: str, behavior: Behavior[Request, Response]) -> Behavior[Request, Response]:
        name = method.lstrip("/")
        return trace_calls(name, behavior, telemetry, telemetry.server_calls.method(semconv.OTHER), origin_of)

    return surround


def trace_calls(
    name: str,
    behavior: Behavior[Request, Response],
    telemetry: Telemetry,
    method: MeasuredMethod,
    origin_of: Callable[[CallContext[Request, Response]], Origin],
) -> Behavior[Request, Response]:
    """Surrounds a behavior with the span, the measurements and the log line of each call.

    Args:
        name: the full name of the method.
        behavior: responds to its calls.
        telemetry: whose spans they make.
        method: measures them; that of all unknown methods has another name.
        origin_of: where the trace of a call begins.
    """
    tracer = telemetry.tracer_provider.get_tracer("meshkit", schema_url=semconv.SCHEMA_URL)
    known = method.name == name
    span_name = name if known else str(method.attributes[semconv.RPC_SYSTEM_NAME])
    common = method.attributes if known else {**method.attributes, semconv.RPC_METHOD_ORIGINAL: name}

    async def respond(context: CallContext[Request, Response]) -> Response | None:
        parent, links, members = origin_of(context)
        attributes = {**common, **_peer(context.peer())}
        span = tracer.start_span(span_name, parent, SpanKind.SERVER, attributes, links)
        of_members = start_spans(tracer, span_name, members, span.get_span_context())
        # Never detached, because each RPC has its own task and context.
        current = set_span_in_context(span, parent)
        otel_context.attach(current)
        start, budget, code = method.begin(), context.time_remaining(), "UNKNOWN"
        try:
            response = await behavior(context)
            is_lost = await context.is_lost() or _is_late(start, budget)
            code = _cancellation(context, budget) if is_lost else context.code_name()
        except grpc.aio.AbortError:
            code = context.code_name()
            raise
        except asyncio.CancelledError:
            code = _cancellation(context, budget)
            raise
        finally:
            seconds = method.end(start, code, current)
            for ending in (span, *of_members):
                end_span(ending, code)
            _log(name, code, seconds, context.peer())
        return response

    return respond


def _callers_trace(context: CallContext[Request, Response]) -> Origin:
    """Continues the trace of the caller, or those of the members of a batch."""
    members = read_members(context.invocation_metadata() or ())
    return extract(carrier(context), Context()), links_to_others(members), members


def _own_trace(context: CallContext[Request, Response]) -> Origin:
    """Begins a trace with a link to the span of the caller, if it sent one: see `meshkit.fastapi.own_traces`."""
    caller = get_current_span(extract(carrier(context), Context())).get_span_context()
    return Context(), [Link(caller)] if caller.is_valid else [], None


def carrier(context: CallContext[Request, Response]) -> dict[str, str]:
    """The metadata. Repeated keys are one list, as in HTTP (RFC 9110, section 5.3), such as of `tracestate`."""
    carrier: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            carrier[key] = f"{carrier[key]},{value}" if key in carrier else value
    return carrier


@lru_cache
def _peer(peer: str) -> Mapping[str, str | int]:
    """Client address and port of a gRPC peer such as `ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711`."""
    kind, _, rest = peer.partition(":")
    address, _, port = rest.rpartition(":")
    if kind not in {"ipv4", "ipv6"} or not port.isdecimal():
        return {semconv.CLIENT_ADDRESS: peer}
    return {semconv.CLIENT_ADDRESS: unquote(address).strip("[]"), semconv.CLIENT_PORT: int(port)}


def _cancellation(context: CallContext[Request, Response], budget: float | None) -> str:
    """Why a call that arrived with `budget` seconds was cancelled: its deadline passed, or its client cancelled it.

    A client at its deadline sends only a cancellation, before the server's own clock reaches the deadline, because the
    deadline travels as a timeout, which is rounded up to three digits and counts from its arrival.
    """
    remaining = context.time_remaining()
    if remaining is None or budget is None:
        return "CANCELLED"
    return "DEADLINE_EXCEEDED" if remaining <= min(budget / 10, budget / 100 + TRANSIT) else "CANCELLED"


def _is_late(start: float, budget: float | None) -> bool:
    """Whether the client of a call that arrived with `budget` seconds has surely given up, by its own clock."""
    return budget is not None and time.perf_counter() - start > budget + TRANSIT


def _log(method: str, code: str, seconds: float, peer: str) -> None:
    level = logging.WARNING if code in semconv.SERVER_ERRORS else logging.INFO
    fields = {"method": method, "status": code, "duration_ms": round(seconds * 1000, 2), "peer": unquote(peer)}
    log_line(log, level, "%s %s", method, code, fields=fields)
