"""Converts OTLP spans to the JSON of Jaeger's query API.

Source: the OpenTelemetry Collector's translator to Jaeger's model, and Jaeger's `uimodel`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tracebox.compact_json import dumps
from tracebox.search import KINDS
from tracebox.streaming import commas
from tracebox.values import Tag, tags, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracebox.store import Origin, StoredSpan, Trace

_SHORT_ID = bytes(8)
_TRACE_ID_BYTES = 16
_SPAN_ID_BYTES = 8
_STATUS = {Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}


RefType: TypeAlias = Literal["CHILD_OF", "FOLLOWS_FROM"]


class JaegerReference(TypedDict):
    """Another span that a span points to."""

    refType: RefType
    traceID: str
    spanID: str


class JaegerLog(TypedDict):
    """An event; `timestamp` in Unix microseconds."""

    timestamp: int
    fields: list[Tag]


class JaegerSpan(TypedDict):
    """A span; `startTime` in Unix microseconds, `duration` in microseconds."""

    traceID: str
    spanID: str
    operationName: str
    references: list[JaegerReference]
    startTime: int
    duration: int
    tags: list[Tag]
    logs: list[JaegerLog]
    processID: str
    warnings: list[str] | None


class JaegerProcess(TypedDict):
    """The sender of spans: a service and the rest of its resource."""

    serviceName: str
    tags: list[Tag]


def format_trace_id(trace_id: bytes) -> str:
    """The id in hexadecimal: 16 digits if its upper half is zero, otherwise 32."""
    return trace_id.removeprefix(_SHORT_ID).hex()


def trace_json(trace: Trace) -> Iterator[str]:
    """The whole trace in parts, with one process for each different resource.

    A trace that is dropped from the store meanwhile ends early, and one that grows has the new spans.
    """
    processes: dict[bytes, tuple[str, Origin]] = {}
    yield f'{{"traceID":{dumps(format_trace_id(trace.trace_id))},"spans":['
    yield from commas(_span_parts(trace, processes))
    yield '],"processes":{'
    yield from commas(f"{dumps(name)}:{dumps(_process(origin))}" for name, origin in processes.values())
    yield '},"warnings":null}'


def _span_parts(trace: Trace, processes: dict[bytes, tuple[str, Origin]]) -> Iterator[str]:
    for span in trace.spans:
        name, _ = processes.setdefault(span.origin.resource, (f"p{len(processes) + 1}", span.origin))
        yield dumps(_span(span, name))


def _process(origin: Origin) -> JaegerProcess:
    attributes = Resource.FromString(origin.resource).attributes
    rest = tags(attribute for attribute in attributes if attribute.key != "service.name")
    return {"serviceName": origin.service, "tags": _by_key(rest)}


def _span(stored: StoredSpan, process_id: str) -> JaegerSpan:
    span = Span.FromString(stored.encoded)
    broken_links = ["Invalid span link removed" for link in span.links if not _is_valid(link)]
    return {
        "traceID": format_trace_id(span.trace_id),
        "spanID": span.span_id.hex(),
        "operationName": stored.name,
        "references": _references(span),
        "startTime": stored.start // 1000,
        "duration": (stored.end - stored.start) // 1000,
        "tags": _span_tags(span, stored.origin),
        "logs": [_log(event) for event in span.events],
        "processID": process_id,
        "warnings": [*_negative_duration(span), *broken_links] or None,
    }


def _negative_duration(span: Span) -> list[str]:
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if start < end:
        return []
    warning = "Negative duration detected, sanitizing end timestamp. Original end timestamp: {}, adjusted to: {}"
    return [warning.format(_utc(end), _utc(start + 1))]


def _utc(unix_nanoseconds: int) -> str:
    """A time as Go prints it, such as `2026-01-02 03:04:10.03 +0000 UTC`."""
    seconds, fraction = divmod(unix_nanoseconds, 1_000_000_000)
    time = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{fraction:09}"
    return f"{time.rstrip('0').rstrip('.')} +0000 UTC"


def _references(span: Span) -> list[JaegerReference]:
    """The parent, then the links; a link to the parent determines the type of the parent's reference."""
    parent = (span.trace_id, span.parent_span_id) if any(span.parent_span_id) else None
    references = [_reference(*parent, "CHILD_OF")] if parent else []
    for link in filter(_is_valid, span.links):
        reference = _reference(link.trace_id, link.span_id, _link_type(link))
        if (link.trace_id, link.span_id) == parent:
            references[0] = reference
        else:
            references.append(reference)
    return references


def _reference(trace_id: bytes, span_id: bytes, ref_type: RefType) -> JaegerReference:
    return {"refType": ref_type, "traceID": format_trace_id(trace_id), "spanID": span_id.hex()}


def _link_type(link: Span.Link) -> RefType:
    types = (text(attribute.value) for attribute in link.attributes if attribute.key == "opentracing.ref_type")
    return "CHILD_OF" if next(types, "") == "child_of" else "FOLLOWS_FROM"


def _is_valid(link: Span.Link) -> bool:
    return len(link.trace_id) == _TRACE_ID_BYTES and any(link.trace_id) and len(link.span_id) == _SPAN_ID_BYTES


def _span_tags(span: Span, origin: Origin) -> list[Tag]:
    scope = InstrumentationScope.FromString(origin.scope)
    intrinsic = {
        "otel.scope.name": scope.name,
        "otel.scope.version": scope.version,
        "span.kind": KINDS.get(span.kind, ""),
        "otel.status_code": _STATUS.get(span.status.code, ""),
        "otel.status_description": span.status.message,
        "w3c.tracestate": span.trace_state,
    }
    all_tags = tags(span.attributes)
    all_tags += [Tag(key=key, type="string", value=value) for key, value in intrinsic.items() if value]
    if span.status.code == Status.STATUS_CODE_ERROR:
        all_tags.append({"key": "error", "type": "bool", "value": True})
    return _by_key(all_tags)


def _log(event: Span.Event) -> JaegerLog:
    fields = tags(event.attributes)
    if event.name and all(attribute.key != "event" for attribute in event.attributes):
        fields.insert(0, {"key": "event", "type": "string", "value": event.name})
    return {"timestamp": event.time_unix_nano // 1000, "fields": fields}


def _by_key(unsorted: list[Tag]) -> list[Tag]:
    return sorted(unsorted, key=itemgetter("key"))
