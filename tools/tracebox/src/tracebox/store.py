"""Stores spans in memory within limits; when it is full, the trace that arrived first is dropped.

A span is stored as the bytes of its message, with the few fields that searches and lists need. The limit of bytes is
for the memory that all of it needs, so that neither tiny spans nor many names exceed it. Everything runs in the event
loop's thread.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from sys import getsizeof
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

SPAN_OVERHEAD, ORIGIN_OVERHEAD, TRACE_OVERHEAD = 400, 800, 650
"""The bytes of memory that a span, the origin of spans and a trace need beside their encoded messages and names."""

_TRACE_ID_BYTES = 16
_SPAN_ID_BYTES = 8


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Origin:
    """The origin of spans: the encoded Resource and InstrumentationScope, which many spans share."""

    service: str
    resource: bytes
    scope: bytes

    @property
    def size(self) -> int:
        """The number of bytes in memory, approximately."""
        return ORIGIN_OVERHEAD + len(self.resource) + len(self.scope) + getsizeof(self.service)


@dataclass(frozen=True, slots=True, eq=False)
class StoredSpan:
    """One span: the encoded OTLP message, and fields for reading without decoding it. Times are Unix nanoseconds."""

    encoded: bytes
    origin: Origin
    span_id: bytes
    parent_id: bytes
    name: str
    kind: int
    status: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """The number of bytes in memory without its origin, approximately."""
        return SPAN_OVERHEAD + len(self.encoded) + getsizeof(self.name)


@dataclass(frozen=True, slots=True)
class Trace:
    """One trace: its id (16 bytes), and its spans in the order of arrival.

    The list is the store's own, so a slow reader keeps nothing in memory: it grows while spans arrive, and is cleared
    when the trace is dropped.
    """

    trace_id: bytes
    spans: Sequence[StoredSpan]


@dataclass(slots=True)
class Rejected:
    """The number of rejected spans of an export, and the reasons."""

    spans: int = 0
    reasons: dict[str, None] = field(default_factory=dict)

    def add(self, reason: str) -> None:
        """Counts one span."""
        self.spans += 1
        self.reasons[reason] = None


@dataclass(slots=True)
class _Held:
    spans: list[StoredSpan] = field(default_factory=list)
    known: set[bytes] = field(default_factory=set)  # the encoded spans, so that a span sent twice is stored once
    origins: set[Origin] = field(default_factory=set)
    size: int = 0

    def cost(self, span: StoredSpan) -> int:
        new = 0 if self.spans else TRACE_OVERHEAD
        return new + span.size + (0 if span.origin in self.origins else span.origin.size)

    def add(self, span: StoredSpan) -> None:
        self.spans.append(span)
        self.known.add(span.encoded)
        self.origins.add(span.origin)


class TraceStore:
    """Traces by id: at most `max_spans` spans, which need at most about `max_bytes` bytes of memory."""

    def __init__(self, max_spans: int, max_bytes: int) -> None:
        self.max_spans = max_spans
        self.max_bytes = max_bytes
        self.spans = 0
        self.bytes = 0
        self._traces: OrderedDict[bytes, _Held] = OrderedDict()
        self._operations: dict[str, Counter[str]] = {}
        self._origins: WeakValueDictionary[tuple[bytes, bytes], Origin] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, request: ExportTraceServiceRequest) -> Rejected:
        """Stores the spans of an export; returns how many were rejected, and why."""
        rejected = Rejected()
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                origin = self._origin(resource_spans.resource, scope_spans.scope.SerializeToString())
                for span in scope_spans.spans:
                    reason = _invalid_id(span) or self._add(span, origin)
                    if reason:
                        rejected.add(reason)
        return rejected

    def _origin(self, resource: Resource, scope: bytes) -> Origin:
        encoded = resource.SerializeToString()
        known = self._origins.get((encoded, scope))
        if known is None:
            known = Origin(service_name(resource), encoded, scope)
            self._origins[encoded, scope] = known
        return known

    def _add(self, span: Span, origin: Origin) -> str | None:
        held = self._traces.get(span.trace_id) or _Held()
        stored = _stored_span(span, origin)
        if stored.encoded in held.known:
            return None
        cost = held.cost(stored)
        if len(held.spans) + 1 > self.max_spans or held.size + cost > self.max_bytes:
            return "the trace alone would fill the store"
        self._traces.setdefault(span.trace_id, held)
        self._keep(held, stored, cost)
        while self.spans > self.max_spans or self.bytes > self.max_bytes:
            self._evict(besides=span.trace_id)
        return None

    def _keep(self, held: _Held, span: StoredSpan, cost: int) -> None:
        held.add(span)
        held.size += cost
        self.bytes += cost
        self.spans += 1
        self._operations.setdefault(span.origin.service, Counter())[span.name] += 1

    def _evict(self, besides: bytes) -> None:
        oldest = next(iter(self._traces))
        if oldest == besides:
            oldest = next(trace_id for trace_id in self._traces if trace_id != besides)
        held = self._traces.pop(oldest)
        self.spans -= len(held.spans)
        self.bytes -= held.size
        for span in held.spans:
            self._forget_operation(span)
        held.spans.clear()

    def _forget_operation(self, span: StoredSpan) -> None:
        counts = self._operations[span.origin.service]
        counts[span.name] -= 1
        if not counts[span.name]:
            del counts[span.name]
        if not counts:
            del self._operations[span.origin.service]

    def trace(self, trace_id: bytes) -> Trace | None:
        """The trace with this id (16 bytes)."""
        held = self._traces.get(trace_id)
        return Trace(trace_id, held.spans) if held else None

    def newest_first(self) -> Iterator[Trace]:
        """All traces, the newest arrival first, without those that arrive or are dropped meanwhile."""
        for trace_id in reversed([*self._traces]):
            if trace := self.trace(trace_id):
                yield trace

    def services(self) -> list[str]:
        """The names of the services that have stored spans, sorted."""
        return sorted(self._operations)

    def operations(self, service: str) -> list[str]:
        """The names of the stored spans of a service, sorted."""
        return sorted(self._operations.get(service, ()))


def _invalid_id(span: Span) -> str | None:
    if len(span.trace_id) != _TRACE_ID_BYTES or not any(span.trace_id):
        return "a trace id must be 16 bytes, not all zero"
    if len(span.span_id) != _SPAN_ID_BYTES or not any(span.span_id):
        return "a span id must be 8 bytes, not all zero"
    if len(span.parent_span_id) not in (0, _SPAN_ID_BYTES):
        return "a parent span id must be 8 bytes or absent"
    return None


def _stored_span(span: Span, origin: Origin) -> StoredSpan:
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    return StoredSpan(
        encoded=span.SerializeToString(),
        origin=origin,
        span_id=span.span_id,
        parent_id=span.parent_span_id if any(span.parent_span_id) else b"",
        name=span.name or "empty-span-name",
        kind=span.kind,
        status=span.status.code,
        start=start,
        end=max(end, start + 1),  # as in Jaeger, a span ends after it starts
    )


def service_name(resource: Resource) -> str:
    """`service.name`, or Jaeger's text if it is missing, empty or not a string."""
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            if attribute.value.WhichOneof("value") != "string_value":
                return "service-name-wrong-type"
            return attribute.value.string_value or "empty-service-name"
    return "missing-service-name"
