"""tracebox as a process: a real exporter, signals, memory and invalid settings."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests import service_process
from tests.tracebox.running import TraceboxProcess, running
from tests.tracebox.spans import export, span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def tracebox() -> AsyncIterator[TraceboxProcess]:
    async with running() as started:
        yield started


def export_with_sdk(otlp: str, traces: int, spans: int) -> list[str]:
    """Creates traces of a root and its children with the SDK, exports them, and returns their ids."""
    provider = TracerProvider(resource=Resource({"service.name": "sdk"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(otlp, insecure=True, compression=grpc.Compression.Gzip)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=traces * spans))
    tracer = provider.get_tracer("tests", "1")
    ids = []
    for number in range(traces):
        with tracer.start_as_current_span("root", attributes={"number": number}) as root:
            ids.append(f"{root.get_span_context().trace_id:032x}")
            for _ in range(spans - 1):
                tracer.start_span("child").end()
    provider.shutdown()
    return ids


async def test_ten_thousand_spans_of_a_real_exporter_are_stored_and_found(tracebox: TraceboxProcess) -> None:
    ids = await asyncio.to_thread(export_with_sdk, tracebox.otlp, 1000, 10)
    assert await tracebox.data("/api/services") == ["sdk"]
    found = await tracebox.data("/api/traces?service=sdk&limit=2000")
    assert sorted(trace["traceID"] for trace in found) == sorted(ids)
    assert {len(trace["spans"]) for trace in found} == {10}
    tags = json.dumps({"number": "789"})
    (one,) = await tracebox.data(f"/api/traces?service=sdk&operation=root&tags={tags}")
    assert one["traceID"] == ids[789]


async def test_readers_that_stall_keep_nothing_that_the_store_has_dropped() -> None:
    async with running(max_bytes="30000000") as small, AsyncExitStack() as stalled:
        for number in range(1, 31):
            spans = [span(number, 1 + n, tags={"text": "x" * 250_000}) for n in range(10)]
            await small.export(export(*spans))
            response = await stalled.enter_async_context(small.http.get(f"/api/traces/{number:x}"))
            assert response.status == 200
        assert memory(small.process.process.pid) < 200_000_000


def memory(pid: int) -> int:
    """The resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_with_exit_status_0_and_nothing_on_stderr(
    tracebox: TraceboxProcess, number: signal.Signals
) -> None:
    await tracebox.export(export(span(1, 1)))
    tracebox.process.signal(number)
    assert (await tracebox.process.exit_status(), tracebox.process.lines) == (0, [])


async def test_exports_in_flight_at_a_signal_succeed_or_fail_without_a_traceback(tracebox: TraceboxProcess) -> None:
    text = "x" * 1_000_000
    requests = [export(span(number, 1, tags={"text": text})) for number in range(1, 9)]
    exports = [asyncio.ensure_future(tracebox.export(request)) for request in requests]
    await asyncio.wait(exports, return_when=asyncio.FIRST_COMPLETED)
    tracebox.process.signal(signal.SIGTERM)
    results = await asyncio.gather(*exports, return_exceptions=True)
    failures = {result.code() for result in results if isinstance(result, grpc.aio.AioRpcError)}
    # a stopping grpc.aio server ends a request that it has received but not accepted as CANCELLED
    assert failures <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    responses = [result for result in results if not isinstance(result, grpc.aio.AioRpcError)]
    assert responses
    assert all(response == ExportTraceServiceResponse() for response in responses)
    assert (await tracebox.process.exit_status(), tracebox.process.lines) == (0, [])


async def test_it_stops_even_if_a_client_stops_reading_a_response(tracebox: TraceboxProcess) -> None:
    for number in range(1, 9):
        await tracebox.export(export(span(1, number, tags={"text": "x" * 4_000_000})))
    async with tracebox.http.get("/api/traces/1") as response:
        assert response.status == 200
        tracebox.process.signal(signal.SIGTERM)
        assert await tracebox.process.exit_status() == 0
    assert not [line for line in tracebox.process.lines if "Traceback" in line]


@pytest.mark.parametrize("setting", ["otlp_listen", "query_listen"])
async def test_a_port_in_use_is_one_line_that_names_the_address_and_the_variable(setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        async with service_process.running("tracebox", **{setting: address}) as process:
            assert await process.exit_status() == 1
    variable = f"TRACEBOX_{setting}".upper()
    expected = f"cannot listen on {address}: Address already in use; set {variable} to another address\n"
    assert (process.printed, process.lines) == ([], [expected])


async def test_each_invalid_setting_is_one_line_that_names_the_variable_and_the_exit_status_is_2() -> None:
    wrong = {"otlp_listen": "nonsense", "query_listen": "a:٣", "max_spans": "0"}
    async with service_process.running("tracebox", **wrong) as process:
        assert await process.exit_status() == 2
    assert process.printed == []
    assert [line.removesuffix("\n") for line in process.lines] == [
        "TRACEBOX_OTLP_LISTEN: must be host:port, such as 127.0.0.1:9464",
        "TRACEBOX_QUERY_LISTEN: must be host:port, such as 127.0.0.1:9464",
        "TRACEBOX_MAX_SPANS: Input should be greater than 0",
    ]
