"""`python -m api_edge`: how the process starts, logs, and ends."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from api_edge.rest.server import listen_socket
from api_edge.settings import Settings
from inventory.servicer import InventoryServicer
from meshkit.config import load_settings
from meshkit.testing import FakeClock, SpanCapture, listening
from tests.edge.mesh import nobody, serving_inventory, serving_pricing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@dataclass
class Edge:
    """A running process, what it has logged, and where it listens."""

    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)

    async def read_log(self, until: str = "") -> None:
        """Reads the log to a message, or to its end."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(entry := json.loads(line))
            if until and entry["message"].startswith(until):
                return

    async def ended(self) -> int:
        """Waits for the process to end; answers its exit status. Nothing that it logged is a traceback."""
        await self.read_log()
        assert not [entry for entry in self.log if "exception" in entry or "Traceback" in entry["message"]]
        return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Remembers the traces of the spans that are exported to it, by span name."""

    def __init__(self) -> None:
        self.traces: dict[str, set[str]] = {}

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                self.traces.setdefault(span.name, set()).add(span.trace_id.hex())
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def collecting(collector: Collector) -> AsyncIterator[str]:
    """The endpoint of a collector."""
    server = grpc.aio.server()
    add: Callable[[Collector, grpc.aio.Server], None] = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)
    async with listening(server) as address:
        yield f"http://{address}"


async def start(**environment: str) -> asyncio.subprocess.Process:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_", "OTEL_"))}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api_edge", env=own | environment, stderr=asyncio.subprocess.PIPE
    )


@asynccontextmanager
async def edge(
    folder: Path, inventory: Callable[..., InventoryServicer] = InventoryServicer, **environment: str
) -> AsyncIterator[Edge]:
    """The edge as a process before both services; killed at the end if it still runs."""
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        stock = await stack.enter_async_context(serving_inventory(folder, SpanCapture("i"), clock, inventory))
        prices = await stack.enter_async_context(serving_pricing(folder, SpanCapture("p"), clock))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        targets = {"EDGE_INVENTORY_TARGET": stock, "EDGE_PRICING_TARGET": prices}
        settings = {"EDGE_LISTEN": "127.0.0.1:0", "EDGE_DRAIN_SECONDS": "0", "EDGE_GRACE_SECONDS": "60"}
        running = Edge(await start(**targets, **(settings | environment)), http)
        try:
            await running.read_log(until="listening on ")
            running.url = f"http://127.0.0.1:{running.log[-1]['port']}"
            yield running
        finally:
            if running.process.returncode is None:
                running.process.kill()
            await running.process.communicate()


class Slow:
    """An inventory whose GetStock waits to be let go."""

    def __init__(self) -> None:
        self.reached, self.free = asyncio.Event(), asyncio.Event()

    def servicer(self) -> Callable[..., InventoryServicer]:
        slow = self

        class SlowInventory(InventoryServicer):
            async def GetStock(self, request: Any, context: Any) -> Any:
                slow.reached.set()
                await slow.free.wait()
                return await super().GetStock(request, context)

        return SlowInventory


async def read(running: Edge, sku: str = "TEA-0001") -> tuple[int, dict[str, Any]]:
    headers = {"X-Request-Timeout-Ms": "15000"}
    async with running.http.get(f"{running.url}/v1/products/{sku}", headers=headers) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_after_its_last_answer(tmp_path: Path, number: signal.Signals) -> None:
    slow = Slow()
    async with edge(tmp_path, slow.servicer()) as running:
        answer = asyncio.create_task(read(running))
        await slow.reached.wait()
        running.signal(number)
        await running.read_log(until="draining")
        slow.free.set()
        status, product = await answer
        assert (status, product["sku"]) == (200, "TEA-0001")
        assert await running.ended() == 0
    assert running.log[-1]["message"] == "stopped"


async def test_a_second_signal_skips_the_waiting_and_ends_it_with_0_too(tmp_path: Path) -> None:
    slow = Slow()
    async with edge(tmp_path, slow.servicer(), EDGE_DRAIN_SECONDS="60") as running:
        answer = asyncio.create_task(read(running))
        await slow.reached.wait()
        running.signal(signal.SIGTERM)
        await running.read_log(until="draining")
        running.signal(signal.SIGTERM)
        status, problem = await answer
        assert (status, problem["reason"]) == (503, "SHUTTING_DOWN")
        assert await running.ended() == 0


async def test_a_client_that_goes_is_noticed_and_its_request_cancelled(tmp_path: Path) -> None:
    slow = Slow()
    async with edge(tmp_path, slow.servicer()) as running:
        answer = asyncio.create_task(read(running))
        await slow.reached.wait()
        answer.cancel()
        await running.read_log(until="GET /v1/products/TEA-0001 499")
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0


async def test_under_load_all_that_was_begun_is_answered_and_all_spans_are_exported(tmp_path: Path) -> None:
    collector, answered = Collector(), set[str]()

    async def ask_until_refused(running: Edge) -> None:
        patient = {"X-Request-Timeout-Ms": "15000"}
        while True:
            try:
                async with running.http.get(f"{running.url}/v1/products/TEA-0001", headers=patient) as response:
                    assert response.status == 200
                    await response.read()
                    answered.add(response.headers["X-Trace-Id"])
            except (aiohttp.ClientConnectionError, ConnectionError):  # before anything of it was read
                return

    async with (
        collecting(collector) as exporter,
        edge(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=exporter, EDGE_DRAIN_SECONDS="0.2") as running,
    ):
        asking = [asyncio.create_task(ask_until_refused(running)) for _ in range(10)]
        await running.read_log(until="GET ")
        running.signal(signal.SIGTERM)
        await asyncio.gather(*asking, running.read_log())
        assert await running.ended() == 0
    logged = {entry["trace_id"] for entry in running.log if entry["logger"] == "api_edge.access"}
    assert len(answered) >= 10
    assert logged == answered
    assert collector.traces["GET /v1/products/{sku}"] == answered


class Refusing(trace_service_pb2_grpc.TraceServiceServicer):
    async def Export(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not from you")


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """The address of a collector that takes nothing."""
    server = grpc.aio.server()
    add: Callable[[Refusing, grpc.aio.Server], None] = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(Refusing(), server)
    async with listening(server) as address:
        yield address


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("collector", "reason"), [("absent", "UNAVAILABLE"), ("silent", "CANCELLED"), ("refusing", "PERMISSION_DENIED")]
)
async def test_without_a_collector_it_answers_and_ends_and_says_once_what_was_lost(
    tmp_path: Path, collector: str, reason: str
) -> None:
    async with AsyncExitStack() as stack:
        if collector == "refusing":
            address = await stack.enter_async_context(refusing())
        else:
            address = stack.enter_context(nobody(silent=collector == "silent"))
        endpoint = f"http://{address}"
        running = await stack.enter_async_context(
            edge(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="50")
        )
        statuses = [(await read(running))[0] for _ in range(20)]
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
    assert statuses == [200] * 20
    *before, lost = [entry for entry in running.log if entry["logger"].startswith(("meshkit.telemetry", "opentel"))]
    assert lost["lost_spans"] == 60, "of each request the HTTP span and two of calls"
    assert lost["message"].startswith(f"lost 60 of 60 spans: 60 not delivered ({reason}: ")
    assert [entry["message"].partition(":")[0] for entry in before] in ([], ["spans cannot be exported and are lost"])


async def test_each_request_is_one_line_of_json_with_its_trace(tmp_path: Path) -> None:
    async with edge(tmp_path) as running:
        assert (await read(running))[0] == 200
        status, problem = await read(running, "NO-1")
        await running.http.get(f"{running.url}/livez")
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
    found, missing = [entry for entry in running.log if "GET " in entry["message"]]
    assert found["message"] == "GET /v1/products/TEA-0001 200"
    assert (missing["message"], missing["trace_id"]) == ("GET /v1/products/NO-1 404", problem["trace_id"])
    assert status == 404
    assert missing.keys() >= {"time", "level", "service", "method", "path", "status", "duration_ms", "span_id"}
    assert missing["peer"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("sampler", "argument", "sampled"),
    [
        ("always_on", "", True),
        ("always_off", "", False),
        ("traceidratio", "1", True),
        ("parentbased_traceidratio", "0", False),
    ],
)
async def test_the_sampler_decides_and_the_answer_and_the_log_tell(
    tmp_path: Path, sampler: str, argument: str, *, sampled: bool
) -> None:
    collector = Collector()
    async with (
        collecting(collector) as exporter,
        edge(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=exporter,
            OTEL_TRACES_SAMPLER=sampler,
            OTEL_TRACES_SAMPLER_ARG=argument,
            EDGE_TRACE_URL="http://traces.test/{trace_id}",
        ) as running,
    ):
        async with running.http.get(f"{running.url}/v1/products/TEA-0001?strict=true") as answer:
            headers, trace = answer.headers, answer.headers["X-Trace-Id"]
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
    flags = int(headers["traceresponse"].rpartition("-")[2], 16)
    assert (bool(flags & 1), "Link" in headers) == (sampled, sampled)
    assert set().union(*collector.traces.values()) == ({trace} if sampled else set())
    [line] = [entry for entry in running.log if entry["logger"] == "api_edge.access"]
    assert (line["trace_id"], int(line["span_id"], 16) != 0) == (trace, True)


async def test_without_telemetry_it_answers_and_names_no_trace(tmp_path: Path) -> None:
    collector = Collector()
    async with (
        collecting(collector) as exporter,
        edge(
            tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=exporter, OTEL_SDK_DISABLED="true", OTEL_PROPAGATORS="none"
        ) as running,
    ):
        async with running.http.get(f"{running.url}/v1/products/TEA-0001?strict=true") as answer:
            assert answer.status == 200
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
    assert not {"X-Trace-Id", "traceresponse", "Link"} & answer.headers.keys()
    assert collector.traces == {}
    assert [entry for entry in running.log if entry["level"] != "INFO"] == []


async def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with listen_socket("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await start(EDGE_LISTEN=address)
        _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode() == f"cannot listen on {address}: Address already in use\n"


async def test_wrong_settings_are_told_in_one_line_each() -> None:
    process = await start(EDGE_LISTEN="here", EDGE_DRAIN_SECONDS="-1", EDGE_LOG_LEVEL="LOUD")
    _, stderr = await process.communicate()
    lines = stderr.decode().splitlines()
    assert process.returncode == 2
    assert sorted(line.partition(":")[0] for line in lines) == ["EDGE_DRAIN_SECONDS", "EDGE_LISTEN", "EDGE_LOG_LEVEL"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EDGE_LISTEN", ""),
        ("EDGE_LISTEN", "8080"),
        ("EDGE_LISTEN", "127.0.0.1:"),
        ("EDGE_LISTEN", "127.0.0.1:x"),
        ("EDGE_LISTEN", "127.0.0.1:-1"),
        ("EDGE_LISTEN", "127.0.0.1:65536"),
        ("EDGE_LISTEN", "127.0.0.1:\u0661"),
        ("EDGE_INVENTORY_TARGET", ""),
        ("EDGE_PRICING_TARGET", ""),
        ("EDGE_TRACE_URL", "http://traces/{trace_id}\nX-Evil: 1"),
        ("EDGE_TRACE_URL", "http://traces/{trace_id}?\u00e4"),
        ("EDGE_DRAIN_SECONDS", "-1"),
        ("EDGE_DRAIN_SECONDS", "inf"),
        ("EDGE_DRAIN_SECONDS", "soon"),
        ("EDGE_GRACE_SECONDS", "0"),
        ("EDGE_GRACE_SECONDS", "nan"),
        ("EDGE_TELEMETRY", "none"),
        ("EDGE_LOG_LEVEL", "LOUD"),
    ],
)
async def test_a_wrong_setting_ends_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as end:
        load_settings(Settings)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{variable}: ")


async def test_an_address_that_is_not_this_machines_is_told() -> None:
    process = await start(EDGE_LISTEN="192.0.2.1:8080")
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode() == "cannot listen on 192.0.2.1:8080: Cannot assign requested address\n"
