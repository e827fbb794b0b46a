"""Finds traces as Jaeger does: in each, one span satisfies every condition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tracebox import values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracebox.store import StoredSpan, Trace, TraceStore

KINDS: dict[int, str] = {
    Span.SPAN_KIND_UNSPECIFIED: "",
    Span.SPAN_KIND_INTERNAL: "internal",
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}
_TRUE, _FALSE = ("1", "t", "T", "true", "True", "TRUE"), ("0", "f", "F", "false", "False", "FALSE")
BOOLEANS = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
FOREVER = 1 << 64  # beyond any time that OTLP can carry


@dataclass(frozen=True, slots=True)
class Search:
    """The conditions on one span, with times in nanoseconds; an empty value or 0 is no condition.

    `tags` are compared as text with the attributes of the span, its scope, its resource and its events;
    `error` and `span.kind` are compared with the span's status and kind.
    """

    service: str = ""
    operation: str = ""
    start_min: int = 0
    start_max: int = FOREVER
    duration_min: int = 0
    duration_max: int = 0
    tags: dict[str, str] = field(default_factory=dict)

    def matches(self, span: StoredSpan) -> bool:
        """Whether the span satisfies every condition."""
        return (
            (not self.service or span.origin.service == self.service)
            and (not self.operation or span.name == self.operation)
            and self.start_min <= span.start <= self.start_max
            and span.end - span.start >= self.duration_min
            and (not self.duration_max or span.end - span.start <= self.duration_max)
            and all(_has_tag(span, key, value) for key, value in self.tags.items())
        )


def find_traces(store: TraceStore, search: Search) -> Iterator[Trace]:
    """The traces found, the newest arrival first, without those that arrive or are dropped meanwhile."""
    return (trace for trace in store.newest_first() if any(map(search.matches, trace.spans)))


def _has_tag(span: StoredSpan, key: str, value: str) -> bool:
    if key == "error":
        return _has_error(span, value)
    if key == "span.kind":
        return KINDS.get(span.kind, "") == value.lower()
    wanted = key.encode(errors="replace")  # JSON may hold half of a surrogate pair
    return (wanted in span.encoded and _span_has(span.encoded, key, value)) or (
        (wanted in span.origin.resource or wanted in span.origin.scope) and _origin_has(span, key, value)
    )


def _has_error(span: StoredSpan, value: str) -> bool:
    wanted = Status.STATUS_CODE_ERROR if BOOLEANS.get(value) else Status.STATUS_CODE_OK
    return value in BOOLEANS and span.status == int(wanted)


def _span_has(encoded: bytes, key: str, value: str) -> bool:
    span = Span.FromString(encoded)
    return _holds(span.attributes, key, value) or any(_holds(event.attributes, key, value) for event in span.events)


def _origin_has(span: StoredSpan, key: str, value: str) -> bool:
    resource = Resource.FromString(span.origin.resource)
    scope = InstrumentationScope.FromString(span.origin.scope)
    return _holds(resource.attributes, key, value) or _holds(scope.attributes, key, value)


def _holds(attributes: Iterable[KeyValue], key: str, value: str) -> bool:
    return any(attribute.key == key and values.text(attribute.value) == value for attribute in attributes)
