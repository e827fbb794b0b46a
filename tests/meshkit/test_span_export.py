"""Every lost span is counted, no call waits for the collector, and each problem is logged once."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from meshkit.telemetry import Telemetry, configure
from meshkit.testing import start_server
from tests.edge.mesh import absent_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BATCH, ROOM = 100, 1000


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Accepts or rejects spans, and responds when the test allows it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refusing = False
        self.partial = trace_service_pb2.ExportTracePartialSuccess()
        self.reached, self.free = asyncio.Event(), asyncio.Event()
        self.free.set()

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the proto
        self.reached.set()
        await self.free.wait()
        if self.refusing:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not from you")
        scopes = [scope for resource in request.resource_spans for scope in resource.scope_spans]
        self.names += [span.name for scope in scopes for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse(partial_success=self.partial)


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    """A collector and its endpoint."""
    collector, server = Collector(), grpc.aio.server()
    add: Callable[[Collector, grpc.aio.Server], None] = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)
    async with start_server(server) as address:
        yield collector, f"http://{address}"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", str(BATCH))
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(ROOM))


def exporting(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Telemetry:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    return configure("shop")


def sell(telemetry: Telemetry, sales: int) -> None:
    tracer = telemetry.tracer_provider.get_tracer("shop")
    for number in range(sales):
        tracer.start_span(str(number)).end()


async def flush(telemetry: Telemetry) -> None:
    await asyncio.to_thread(telemetry.tracer_provider.force_flush)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The log messages, without asyncio's warnings about slow callbacks."""
    return [record.getMessage() for record in caplog.records if record.name != "asyncio"]


async def test_every_span_arrives_and_nothing_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting() as (collector, endpoint):
        telemetry = exporting(monkeypatch, endpoint)
        sell(telemetry, ROOM)
        await telemetry.shutdown()
    assert sorted(map(int, collector.names)) == list(range(ROOM))
    assert messages(caplog) == []


async def test_a_rejecting_collector_is_logged_once_and_the_losses_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting() as (collector, endpoint):
        collector.refusing = True
        telemetry = exporting(monkeypatch, endpoint)
        for _ in range(3):
            sell(telemetry, ROOM)
            await flush(telemetry)
        await telemetry.shutdown()
        await telemetry.shutdown()
    reason = "PERMISSION_DENIED: not from you"
    assert messages(caplog) == [
        f"spans cannot be exported and are lost: {reason}",
        f"lost {3 * ROOM} of {3 * ROOM} spans: {3 * ROOM} not delivered ({reason})",
    ]
    assert [record.lost_spans for record in caplog.records if hasattr(record, "lost_spans")] == [3 * ROOM]


async def test_spans_that_a_collector_rejects_from_accepted_exports_are_counted_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting() as (collector, endpoint):
        telemetry = exporting(monkeypatch, endpoint)
        for rejected in (2, 0, 5, BATCH + 1, -1):
            message = f"quota {rejected}" if rejected > 0 else ""
            collector.partial = trace_service_pb2.ExportTracePartialSuccess(
                rejected_spans=rejected, error_message=message
            )
            sell(telemetry, BATCH)
            await flush(telemetry)
        await telemetry.shutdown()
    lost = 2 + 5 + BATCH
    assert messages(caplog) == [
        "the collector rejected 2 spans, which are lost: quota 2",
        f"lost {lost} of {5 * BATCH} spans: {lost} rejected by the collector (quota {BATCH + 1})",
    ]


async def test_a_warning_of_a_collector_that_rejects_nothing_is_logged_once_below_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshkit.telemetry")
    async with collecting() as (collector, endpoint):
        collector.partial = trace_service_pb2.ExportTracePartialSuccess(error_message="slow down " + "x" * 10_000)
        telemetry = exporting(monkeypatch, endpoint)
        sell(telemetry, 3 * BATCH)
        await telemetry.shutdown()
    (warning,) = [record for record in caplog.records if record.name == "meshkit.telemetry"]
    assert warning.getMessage().startswith("the collector accepts spans with a warning: slow down x")
    assert (warning.levelno, len(warning.getMessage()) < 1000) == (logging.INFO, True)


async def test_an_absent_collector_is_logged_once_and_the_losses_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with absent_server() as address:
        telemetry = exporting(monkeypatch, f"http://{address}")
        sell(telemetry, 3 * BATCH)
        await flush(telemetry)
        sell(telemetry, 3 * BATCH)
        await telemetry.shutdown()
    away, lost = messages(caplog)
    assert away.startswith("spans cannot be exported and are lost: UNAVAILABLE: ")
    assert address in away
    assert lost.startswith(f"lost {6 * BATCH} of {6 * BATCH} spans: {6 * BATCH} not delivered (UNAVAILABLE: ")


async def test_the_return_of_a_collector_is_logged_with_the_losses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting() as (collector, endpoint):
        telemetry = exporting(monkeypatch, endpoint)
        for refusing in (False, True, True, False, True, False):
            collector.refusing = refusing
            sell(telemetry, BATCH)
            await flush(telemetry)
        await telemetry.shutdown()
    assert [line.partition(": ")[0] for line in messages(caplog)] == [
        "spans cannot be exported and are lost",
        f"spans are exported again; {2 * BATCH} were lost",
        "spans cannot be exported and are lost",
        f"spans are exported again; {BATCH} were lost",
        f"lost {3 * BATCH} of {6 * BATCH} spans",
    ]
    assert len(collector.names) == 3 * BATCH


async def test_spans_that_exceed_the_queue_of_a_slow_collector_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting() as (collector, endpoint):
        telemetry = exporting(monkeypatch, endpoint)
        collector.free.clear()
        sell(telemetry, BATCH)
        await collector.reached.wait()
        sell(telemetry, ROOM + 7)
        collector.free.set()
        await telemetry.shutdown()
    assert messages(caplog) == [f"lost 7 of {BATCH + ROOM + 7} spans: 7 dropped because the queue was full"]
    assert len(collector.names) == BATCH + ROOM


async def test_a_shutdown_does_not_wait_for_a_hanging_collector(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    async with collecting() as (collector, endpoint):
        collector.free.clear()
        telemetry = exporting(monkeypatch, endpoint)
        sell(telemetry, 5 * BATCH)
        await telemetry.shutdown()
    (lost,) = messages(caplog)
    assert lost.startswith(f"lost {5 * BATCH} of {5 * BATCH} spans: {5 * BATCH} not delivered (")


async def test_a_span_that_has_not_ended_at_the_shutdown_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with collecting() as (collector, endpoint):
        telemetry = exporting(monkeypatch, endpoint)
        late = telemetry.tracer_provider.get_tracer("shop").start_span("late")
        sell(telemetry, 2)
        await telemetry.shutdown()
        late.end()
    assert messages(caplog) == ["lost 1 of 3 spans: 1 not ended at shutdown"]
    assert sorted(collector.names) == ["0", "1"]


async def test_unsampled_spans_are_neither_exported_nor_counted_as_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with collecting() as (collector, endpoint):
        telemetry = exporting(monkeypatch, endpoint)
        sell(telemetry, 2 * ROOM)
        await telemetry.shutdown()
    assert (collector.names, messages(caplog)) == ([], [])


async def test_an_empty_queue_size_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "")
    async with collecting() as (collector, endpoint):
        telemetry = exporting(monkeypatch, endpoint)
        sell(telemetry, 2 * ROOM)
        await telemetry.shutdown()
    assert len(collector.names) == 2 * ROOM
