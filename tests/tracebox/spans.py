"""Builds OTLP spans for the tests of tracebox. Times are milliseconds after T0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

T0 = 1_767_323_045  # 2026-01-02T03:04:05Z
Plain: TypeAlias = bool | int | float | str | bytes | Sequence[Any] | Mapping[str, Any] | None
_FIELDS = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value", bytes: "bytes_value"}


def any_value(plain: Plain) -> AnyValue:
    if plain is None:
        return AnyValue()
    if isinstance(plain, Mapping):
        return AnyValue(kvlist_value=KeyValueList(values=attributes(plain)))
    if type(plain) in _FIELDS:
        value = AnyValue()
        setattr(value, _FIELDS[type(plain)], plain)
        return value
    return AnyValue(array_value=ArrayValue(values=map(any_value, cast("Sequence[Any]", plain))))


def attributes(plain: Mapping[str, Plain]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in plain.items()]


def span(
    trace: int,
    number: int,
    name: str = "work",
    *,
    at: tuple[float, float] = (0, 1),
    parent: int = 0,
    kind: Span.SpanKind.ValueType = Span.SPAN_KIND_INTERNAL,
    tags: Mapping[str, Plain] | None = None,
    error: str | None = None,
    events: Sequence[Span.Event] = (),
    links: Sequence[tuple[int, int]] = (),
) -> Span:
    return Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        kind=kind,
        start_time_unix_nano=nanoseconds(at[0]),
        end_time_unix_nano=nanoseconds(at[1]),
        attributes=attributes(tags or {}),
        status=Status() if error is None else Status(code=Status.STATUS_CODE_ERROR, message=error),
        events=events,
        links=[Span.Link(trace_id=t.to_bytes(16, "big"), span_id=s.to_bytes(8, "big")) for t, s in links],
    )


def nanoseconds(after_ms: float) -> int:
    return T0 * 1_000_000_000 + round(after_ms * 1_000_000)


def event(name: str, at: float, **fields: Plain) -> Span.Event:
    return Span.Event(name=name, time_unix_nano=nanoseconds(at), attributes=attributes(fields))


def export(*spans: Span, service: str | None = "shop", **resource: Plain) -> ExportTraceServiceRequest:
    """One request with the spans of one service; `None` omits `service.name`."""
    name = {} if service is None else {"service.name": service}
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add()
    block.resource.attributes.extend(attributes({**name, **resource}))
    scope_spans = block.scope_spans.add()
    scope_spans.scope.name = "tests"
    scope_spans.spans.extend(spans)
    return request
