"""meshkit's encoder writes the same OTLP as OpenTelemetry's."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from meshkit.telemetry import spans as own
from meshkit.telemetry.encoding import MAX_BYTES, encode, requests
from meshkit.telemetry.repair import TEXT_LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

STATE = TraceState([("vendor", "a"), ("other", "b=c")])
REMOTE = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1), trace_state=STATE)
LOCAL = SpanContext(7, 9, is_remote=False, trace_flags=TraceFlags(1))
EQUAL_VALUES: list[Any] = [1, True, 1.0, 0, False, 0.0, -0.0, (1,), (True,), (1.0,), "1", b"1"]
VALUES: list[Any] = [None, "", "a" * 5000, -(1 << 63), 1.5, [], ["a", 1, None], {"a": {"b": [b"\xff"]}}, "€", object()]


def spans_of_every_kind(provider_type: type[TracerProvider], longest: int | None) -> Sequence[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = provider_type(
        resource=Resource({"service.name": "shop", "ports": [1, 2]}, "https://schema.test/resource"),
        span_limits=SpanLimits(max_span_attributes=30, max_events=2, max_links=2, max_span_attribute_length=longest),
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("shop", "1", "https://schema.test/scope", {"zone": "north"})
    other = provider.get_tracer("other")
    parents = [None, *(set_span_in_context(NonRecordingSpan(parent)) for parent in (REMOTE, LOCAL))]
    for kind, parent in itertools.product(SpanKind, parents):
        (tracer if parent else other).start_span("sell", parent, kind, {"sku": "TEA-0001", "quantity": 3}).end()
    for value in [*EQUAL_VALUES, *VALUES]:
        tracer.start_span("value", attributes={"value": value}).end()
    names: dict[Any, Any] = {"": 1, "sku": "TEA-0001", 7: 1}
    tracer.start_span("names", attributes=names).end()
    for status in (Status(StatusCode.OK), Status(StatusCode.ERROR), Status(StatusCode.ERROR, "out of tea")):
        span = tracer.start_span("status")
        span.set_status(status)
        span.end()
    tracer.start_span("link", links=[Link(LOCAL)]).end()
    for number in (1, 3):
        span = tracer.start_span("lists", links=[Link(REMOTE, {"n": n}) for n in range(number)])
        span.add_link(LOCAL)
        for n in range(number):
            span.add_event("event", {"n": n}, timestamp=n)
        span.set_attributes({f"key {n}": n for n in range(11 * number)})
        span.end()
    return exporter.get_finished_spans()


def encoded_by_opentelemetry(spans: Sequence[ReadableSpan]) -> object:
    """The request of OpenTelemetry's encoder, which writes a default status, too."""
    request = encode_spans(spans)
    for scope in (scope for resource in request.resource_spans for scope in resource.scope_spans):
        for span in scope.spans:
            if not span.status.ByteSize():
                span.ClearField("status")
    return request


def decoded(spans: Sequence[ReadableSpan]) -> list[tuple[ExportTraceServiceRequest, int]]:
    ended = [encode(span) for span in spans]
    return [(ExportTraceServiceRequest.FromString(request), number) for request, number in requests(ended)]


@pytest.mark.parametrize("longest", [None, TEXT_LENGTH, TEXT_LENGTH + 1])
@pytest.mark.parametrize("provider", [TracerProvider, own.TracerProvider])
def test_spans_of_every_kind_are_encoded_as_by_opentelemetry(
    provider: type[TracerProvider], longest: int | None
) -> None:
    spans = spans_of_every_kind(provider, longest)
    encodings = [decoded(spans), decoded(spans)]  # the second from the cache
    encodings.append(decoded(spans) if any(span.attributes for span in spans) else [])  # a read span is not plain
    assert encodings == [[(encoded_by_opentelemetry(spans), len(spans))]] * 3


def test_the_cache_of_attributes_stays_small() -> None:
    exporter = InMemorySpanExporter()
    provider = own.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("shop")
    for number in range(3000):
        tracer.start_span("sell", attributes={"sku": f"{number} {'x' * 500}"}).end()
    spans = exporter.get_finished_spans()
    texts = []
    for request, _ in decoded(spans):
        assert request.ByteSize() < MAX_BYTES
        texts += [span.attributes[0].value.string_value for span in request.resource_spans[0].scope_spans[0].spans]
    assert texts == [str((span.attributes or {})["sku"]) for span in spans]
