"""A value that OTLP cannot carry loses nothing but itself: no other value, and no other span or metric."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, Tracer

from meshkit.telemetry import configure
from meshkit.testing import start_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HALF = "\ud800"  # of a surrogate pair
CONTEXT = SpanContext(trace_id=1, span_id=1, is_remote=False)


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps the spans and the metrics, and rejects `rejecting` data points of metrics."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.metrics: set[str] = set()
        self.resource: dict[str, str] = {}
        self.rejecting = 0

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the proto
        if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
            scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
            self.metrics |= {metric.name for scope in scopes for metric in scope.metrics}
            partial = metrics_service_pb2.ExportMetricsPartialSuccess(
                rejected_data_points=self.rejecting, error_message="too many"
            )
            return metrics_service_pb2.ExportMetricsServiceResponse(partial_success=partial)
        for resource in request.resource_spans:
            self.resource = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.spans |= {span.name: span for scope in resource.scope_spans for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def collecting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector that the standard variables name."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    collector, server = Collector(), grpc.aio.server()
    traces: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    traces(collector, server)
    metrics(collector, server)
    async with start_server(server) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address}")
        yield collector


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = {"in": [value]}
    return value


def start(tracer: Tracer, name: str = "broken") -> Span:
    span = tracer.start_span(name)
    assert isinstance(span, Span)
    span.set_attribute("whole", "yes")
    return span


def with_attribute(value: Any) -> Callable[[Tracer], None]:
    def create(tracer: Tracer) -> None:
        span = start(tracer)
        span.set_attribute("value", value)
        span.end()

    return create


def with_event(tracer: Tracer) -> None:
    span = start(tracer)
    span.add_event(f"event {HALF}", {"number": 1 << 64, HALF: HALF}, timestamp=-1)
    span.end()


def with_link(tracer: Tracer) -> None:
    span = tracer.start_span("broken", links=[Link(CONTEXT, {"text": HALF})])
    span.set_attribute("whole", "yes")
    span.end()


def with_status(tracer: Tracer) -> None:
    span = start(tracer)
    span.set_status(Status(StatusCode.ERROR, HALF))
    span.end()


def with_times(tracer: Tracer) -> None:
    span = tracer.start_span("broken", start_time=-5)
    span.set_attribute("whole", "yes")
    span.end(end_time=1 << 70)


def with_a_long_message(tracer: Tracer) -> None:
    span = start(tracer)
    span.record_exception(ValueError("x" * 5_000_000))
    span.set_status(Status(StatusCode.ERROR, "x" * 5_000_000))
    span.end()


def with_a_name(name: Any) -> Callable[[Tracer], None]:
    return lambda tracer: start(tracer, name).end()


BROKEN: dict[str, Callable[[Tracer], None]] = {
    "half of a surrogate pair": with_attribute(f"a{HALF}b"),
    "a byte of a file name that is not UTF-8": with_attribute(os.fsdecode(b"caf\xe9")),
    "an integer of 65 bits": with_attribute(1 << 64),
    "an integer that Python does not write": with_attribute(1 << 100_000),
    "a list with everything": with_attribute([1, "a", None, HALF, [1 << 64], {HALF: HALF}, b"\xff", object()]),
    "lists in lists": with_attribute(nested(60)),
    "a list that is longer than a message": with_attribute(["x" * 100] * 50_000),
    "an event": with_event,
    "a link": with_link,
    "a status": with_status,
    "times": with_times,
    "long texts": with_a_long_message,
}


@pytest.mark.parametrize("create", BROKEN.values(), ids=BROKEN)
async def test_a_broken_value_loses_no_other_value_and_no_other_span(
    create: Callable[[Tracer], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting(monkeypatch) as collector:
        telemetry = configure("shop")
        tracer = telemetry.tracer_provider.get_tracer("shop")
        start(tracer, "before").end()
        await asyncio.to_thread(create, tracer)
        start(tracer, "after").end()
        await telemetry.shutdown()
    assert collector.spans.keys() == {"before", "broken", "after"}
    assert "whole" in {attribute.key for attribute in collector.spans["broken"].attributes}
    assert [record for record in caplog.records if record.name.startswith(("meshkit", "opentelemetry.exporter"))] == []


async def test_names_and_scopes_that_are_broken_lose_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    async with collecting(monkeypatch) as collector:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", os.fsdecode(b"city=caf\xe9,zone=north"))
        telemetry = configure("shop")
        for name in (f"half {HALF}", "x" * 5_000_000, 7):
            with_a_name(name)(telemetry.tracer_provider.get_tracer(f"scope {HALF}", f"1{HALF}"))
        with_a_name("good")(telemetry.tracer_provider.get_tracer("scope"))
        await telemetry.shutdown()
    assert collector.spans.keys() == {"half \N{REPLACEMENT CHARACTER}", "x" * 2048, "7", "good"}
    assert collector.resource["city"] == "caf\N{REPLACEMENT CHARACTER}"
    assert collector.resource["zone"] == "north"


async def test_a_batch_that_is_larger_than_a_message_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(monkeypatch) as collector:
        telemetry = configure("shop")
        tracer = telemetry.tracer_provider.get_tracer("shop")
        for number in range(30):
            span = start(tracer, str(number))
            for key in range(100):
                span.set_attribute(f"text {key}", "x" * 2048)
            span.end()
        await telemetry.shutdown()
    assert {name: len(span.attributes) for name, span in collector.spans.items()} == dict.fromkeys(
        map(str, range(30)), 101
    )


async def test_a_metric_that_cannot_be_encoded_loses_no_other_metric(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting(monkeypatch) as collector:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        collector.rejecting = 3
        telemetry = configure("shop")
        telemetry.meter.create_counter("broken").add(1 << 70)
        telemetry.meter.create_counter("text").add(1, {"text": HALF})
        telemetry.meter.create_counter("good").add(1)
        await telemetry.shutdown()
    assert collector.metrics == {"text", "good"}
    logged = [r.getMessage() for r in caplog.records if r.name.startswith(("meshkit", "opentelemetry.exporter"))]
    assert logged == ["the collector rejected 3 data points of metrics: too many"]
