"""Encodes ended spans as OTLP requests.

https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto. Parsing a
message into another one merges them (https://protobuf.dev/programming-guides/encoding/#last-one-wins), so a span is
the concatenation of spans that have one field each. Those that many spans have, such as attributes, are encoded once.
Fields of a fixed size are written behind the bytes that protobuf writes before them, and messages behind their length.
A span is encoded when it ends: its memory is used again at once, and what waits for the export is smaller. Only a span
that cannot be encoded, or is larger than a request, is repaired (`repair.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby, repeat
from operator import itemgetter
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanKind, StatusCode

from meshkit.telemetry.repair import TEXT_LENGTH, repair, repair_attributes, repair_text
from meshkit.telemetry.spans import UNSET
from meshkit.telemetry.spans import Span as OwnSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opentelemetry.sdk.resources import Resource as SdkResource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope as SdkScope
    from opentelemetry.trace import Link, SpanContext
    from opentelemetry.util.types import Attributes

EndedSpan: TypeAlias = "tuple[SdkResource, SdkScope | None, bytes]"
"""What the export keeps of an ended span: the resource of its provider, the scope of its tracer, and the span as a
field of ScopeSpans, which is empty if it cannot be encoded."""

RESOURCE_OF, SCOPE_OF, FIELD_OF = map(itemgetter, range(3))
"""The parts of an EndedSpan."""

EncodedSpans: TypeAlias = tuple[bytes, int]
"""An encoded ExportTraceServiceRequest, and its number of spans."""

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
"""The RPC that takes a request."""

read_response = ExportTraceServiceResponse.FromString
"""Its response, of the encoded one."""

MAX_BYTES = 4_000_000
"""The maximum size of a request: collectors accept 4 MiB, which is gRPC's default."""

CACHED_ATTRIBUTES = 1024
"""The number of attributes whose encoding is kept; their texts have at most TEXT_LENGTH characters."""

CACHED_NAMES = 256
"""The number of names of spans whose encoding is kept."""

CACHED_LENGTHS = 4096
"""The number of lengths of messages whose encoding is kept."""

KINDS = {
    SpanKind.INTERNAL.value: Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER.value: Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT.value: Span.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER.value: Span.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER.value: Span.SPAN_KIND_CONSUMER,
}
"""By value, because members of an Enum are slow to hash."""

CODES = {
    StatusCode.UNSET: Status.STATUS_CODE_UNSET,
    StatusCode.OK: Status.STATUS_CODE_OK,
    StatusCode.ERROR: Status.STATUS_CODE_ERROR,
}
NO_STATE = INVALID_SPAN_CONTEXT.trace_state
"""The trace state of every context without one."""

LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
REMOTE = LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def _before(size: int, **field: Any) -> bytes:
    """What protobuf writes before the `size` bytes of a field."""
    return Span(**field).SerializeToString()[:-size]


TRACE_ID, SPAN_ID, PARENT_ID = (
    _before(16, trace_id=bytes(16)),
    _before(8, span_id=bytes(8)),
    _before(8, parent_span_id=bytes(8)),
)
START, END = _before(8, start_time_unix_nano=1), _before(8, end_time_unix_nano=1)
LOCAL_PARENT, REMOTE_PARENT = (Span(flags=flags).SerializeToString() for flags in (LOCAL, REMOTE))
TIMES = Struct(f"<{len(START)}sQ{len(END)}sQ")

RESOURCE_SPANS, SCOPE_SPANS, SPAN = (
    ExportTraceServiceRequest(resource_spans=[ResourceSpans()]).SerializeToString()[:-1],
    ResourceSpans(scope_spans=[ScopeSpans()]).SerializeToString()[:-1],
    ScopeSpans(spans=[Span()]).SerializeToString()[:-1],
)
"""What protobuf writes before the length of such a field."""

_LINK = Span.Link(trace_id=bytes(16), span_id=bytes(8), flags=LOCAL)
LINK_TRACE_ID = _before(16 + 2 + 8 + 5, links=[_LINK])
LINK_SPAN_ID = Span.Link(span_id=bytes(8)).SerializeToString()[:-8]
LOCAL_LINK, REMOTE_LINK = (Span.Link(flags=flags).SerializeToString() for flags in (LOCAL, REMOTE))
LINK = Struct(f"<{len(LINK_TRACE_ID)}s16s{len(LINK_SPAN_ID)}s8s{len(LOCAL_LINK)}s")


def encode(span: ReadableSpan) -> EndedSpan:
    """Encodes a span; repairs it before if it cannot be encoded or is larger than a request."""
    return span.resource, span.instrumentation_scope, _encoding(span) or _encoding(span, repair)


def _encoding(span: ReadableSpan, change: Callable[[ReadableSpan], ReadableSpan] | None = None) -> bytes:
    try:
        field = _field(SPAN, _span(change(span) if change else span))
    except Exception:  # noqa: BLE001 - protobuf raises types of its own, and ValueError, TypeError, RecursionError
        return b""
    return field if len(field) <= MAX_BYTES else b""


def requests(spans: Sequence[EndedSpan]) -> Iterator[EncodedSpans]:
    """Requests with all spans that could be encoded, each with at most MAX_BYTES of spans."""
    encoded = [*filter(FIELD_OF, spans)]
    if sum(map(len, map(FIELD_OF, encoded))) > MAX_BYTES:
        middle = len(encoded) // 2
        yield from requests(encoded[:middle])
        yield from requests(encoded[middle:])
    elif encoded:
        yield _request(encoded), len(encoded)


def _request(spans: Sequence[EndedSpan]) -> bytes:
    return b"".join([_resource_spans(own, _groups(own, SCOPE_OF)) for own in _groups(spans, RESOURCE_OF)])


def _groups(spans: Sequence[EndedSpan], part: Callable[[EndedSpan], object]) -> Iterable[Sequence[EndedSpan]]:
    """The spans for which this part is the same."""
    groups: defaultdict[int, list[EndedSpan]] = defaultdict(list)  # by identity, because resources are slow to hash
    for key, neighbours in groupby(spans, part):
        groups[id(key)] += neighbours
    return groups.values()


def _resource_spans(spans: Sequence[EndedSpan], scopes: Iterable[Sequence[EndedSpan]]) -> bytes:
    pieces = [_field(SCOPE_SPANS, _scope(SCOPE_OF(own[0])) + b"".join(map(FIELD_OF, own))) for own in scopes]
    return _field(RESOURCE_SPANS, _resource(RESOURCE_OF(spans[0])) + b"".join(pieces))


def _field(tag: bytes, message: bytes) -> bytes:
    """A field that is a message."""
    return tag + _varint(len(message)) + message


@lru_cache(CACHED_LENGTHS)
def _varint(number: int) -> bytes:
    """https://protobuf.dev/programming-guides/encoding/#varints."""
    more = number >> 7
    return bytes([number & 0x7F | 0x80]) + _varint(more) if more else bytes([number])


def _resource(resource: SdkResource) -> bytes:
    own = Resource(attributes=_valid_key_values(resource.attributes))
    return ResourceSpans(resource=own, schema_url=repair_text(resource.schema_url)).SerializeToString()


def _scope(scope: SdkScope | None) -> bytes:
    if scope is None:
        return ScopeSpans(scope=InstrumentationScope()).SerializeToString()
    name, version, url = map(repair_text, (scope.name, scope.version or "", scope.schema_url or ""))
    own = InstrumentationScope(name=name, version=version, attributes=_valid_key_values(scope.attributes))
    return ScopeSpans(scope=own, schema_url=url).SerializeToString()


def _valid_key_values(attributes: Attributes) -> list[KeyValue]:
    try:
        return _key_values(attributes)
    except Exception:  # noqa: BLE001 - as above
        return _key_values(repair_attributes(attributes))


def _span(span: ReadableSpan) -> bytes:
    context: SpanContext = span.context  # pyright: ignore[reportAssignmentType] # of an ended span
    trace_id, span_id, _, _, trace_state, _ = context  # its properties are functions in Python
    pieces = [
        TRACE_ID,
        trace_id.to_bytes(16, "big"),
        SPAN_ID,
        span_id.to_bytes(8, "big"),
        TIMES.pack(START, span.start_time or 0, END, span.end_time or 0),
        _name_and_kind(span.name, span.kind._value_),
        *(_plain_fields(span) if isinstance(span, OwnSpan) and span.is_plain else _fields(span)),
    ]
    if parent := span.parent:
        _, parent_id, is_remote, _, _, _ = parent
        pieces += PARENT_ID, parent_id.to_bytes(8, "big"), REMOTE_PARENT if is_remote else LOCAL_PARENT
    else:
        pieces.append(LOCAL_PARENT)
    if trace_state is not NO_STATE and trace_state:  # first what needs no call: its truth is a function in Python
        pieces.append(Span(trace_state=trace_state.to_header()).SerializeToString())
    if (status := span.status) is not UNSET and not status.is_unset:
        own = Status(code=CODES[status.status_code], message=status.description or "")
        pieces.append(Span(status=own).SerializeToString())
    return b"".join(pieces)


def _plain_fields(span: OwnSpan) -> Sequence[bytes]:
    """The encodings of spans with one attribute or link of a plain span each."""
    attributes, limit = span.plain_attributes, span.max_text_length
    try:
        own = [*map(_cached, attributes, attributes.values(), repeat(limit))]
    except _UncleanAttributeError:
        names_are_valid = all(type(name) is str and name for name in attributes)
        if not names_are_valid or limit is None or limit > TEXT_LENGTH:
            return _fields(span)
        own = [_cached(name, _shortened(value, limit), limit) for name, value in attributes.items()]
    return [*own, *map(_plain_link, span.plain_links)]


def _shortened(value: str | int, limit: int) -> str | int:
    return value[:limit] if isinstance(value, str) else value


class _UncleanAttributeError(Exception):
    """The SDK would drop or shorten an attribute, or it is too long to keep its encoding."""


@lru_cache(CACHED_ATTRIBUTES)
def _cached(name: object, value: str | int, limit: int | None) -> bytes:
    """The encoding of a span with one attribute, of a type in `PLAIN`."""
    max_length = TEXT_LENGTH if limit is None else min(limit, TEXT_LENGTH)
    if not isinstance(name, str) or not name or (isinstance(value, str) and len(value) > max_length):
        raise _UncleanAttributeError
    return Span(attributes=[KeyValue(key=name, value=_value(value))]).SerializeToString()


def _plain_link(context: SpanContext) -> bytes:
    """The encoding of a span with a link to this one."""
    trace_id, span_id, is_remote, _, _, _ = context
    flags = REMOTE_LINK if is_remote else LOCAL_LINK
    return LINK.pack(LINK_TRACE_ID, trace_id.to_bytes(16, "big"), LINK_SPAN_ID, span_id.to_bytes(8, "big"), flags)


def _fields(span: ReadableSpan) -> Sequence[bytes]:
    """The encoding of a span with the attributes, events and links of this one."""
    own = Span(
        attributes=_key_values(span.attributes),
        events=map(_event, span.events),
        links=map(_link, span.links),
        dropped_attributes_count=span.dropped_attributes,
        dropped_events_count=span.dropped_events,
        dropped_links_count=span.dropped_links,
    )
    return (own.SerializeToString(),)


@lru_cache(CACHED_NAMES)
def _name_and_kind(name: str, kind: int) -> bytes:
    return Span(name=name, kind=KINDS[kind]).SerializeToString()


def _event(event: Event) -> Span.Event:
    return Span.Event(
        name=event.name,
        time_unix_nano=event.timestamp,
        attributes=_key_values(event.attributes),
        dropped_attributes_count=event.dropped_attributes,
    )


def _link(link: Link) -> Span.Link:
    return Span.Link(
        trace_id=link.context.trace_id.to_bytes(16, "big"),
        span_id=link.context.span_id.to_bytes(8, "big"),
        attributes=_key_values(link.attributes),
        dropped_attributes_count=link.dropped_attributes,
        flags=REMOTE if link.context.is_remote else LOCAL,
    )


def _key_values(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in (attributes or {}).items()]


def _value(value: object) -> AnyValue:
    if isinstance(value, Mapping):
        items = [KeyValue(key=str(key), value=_value(item)) for key, item in value.items()]
        return AnyValue(kvlist_value=KeyValueList(values=items))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
    return _scalar(value)


def _scalar(value: object) -> AnyValue:
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
    raise TypeError(f"OTLP has no encoding for {type(value)}")
