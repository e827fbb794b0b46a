"""`python -m api_edge` as an operator runs it: its start, its log and its end."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from aiomesh.storefront.v1 import storefront_service_pb2, storefront_service_pb2_grpc
from inventory.servicer import InventoryServicer
from meshkit.testing import FakeClock, SpanCapture, start_server
from tests.edge.mesh import absent_server, seed, start_inventory, start_pricing
from tests.service_process import FREE, ServiceProcess, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)  # they start processes


@dataclass
class Edge:
    """A running process and its URL."""

    process: ServiceProcess
    http: aiohttp.ClientSession
    url: str

    @property
    def log(self) -> list[dict[str, Any]]:
        return self.process.records

    async def exit_status(self) -> int:
        """Waits for the end of the process, asserts that it logged no traceback, and returns its exit status."""
        status = await self.process.exit_status()
        assert not [entry for entry in self.log if "exception" in entry or "Traceback" in entry["message"]]
        return status


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Stores the trace ids of the spans exported to it, by span name."""

    def __init__(self) -> None:
        self.traces: dict[str, set[str]] = {}

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                self.traces.setdefault(span.name, set()).add(span.trace_id.hex())
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def start_collector(collector: Collector) -> AsyncIterator[str]:
    """Starts a collector. Yields its endpoint."""
    server = grpc.aio.server()
    add: Callable[[Collector, grpc.aio.Server], None] = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)
    async with start_server(server) as address:
        yield f"http://{address}"


@asynccontextmanager
async def edge(
    folder: Path, inventory: Callable[..., InventoryServicer] = InventoryServicer, **environment: str
) -> AsyncIterator[Edge]:
    """Starts both services, and the edge as a process, which is killed at the end of the block."""
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        stock = await stack.enter_async_context(
            start_inventory(await seed(folder / "inventory.db"), SpanCapture("i"), clock, inventory)
        )
        prices = await stack.enter_async_context(
            start_pricing(await seed(folder / "pricing.db"), SpanCapture("p"), clock)
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        settings = {"inventory_target": stock, "pricing_target": prices, "drain_seconds": "0", "grace_seconds": "60"}
        process = await stack.enter_async_context(running("api_edge", environment, **settings))
        yield Edge(process, http, f"http://{await process.address()}")


class Slow:
    """An inventory whose GetStock waits until `free` is set."""

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


async def read(shop: Edge, sku: str = "TEA-0001") -> tuple[int, dict[str, Any]]:
    headers = {"X-Request-Timeout-Ms": "15000"}
    async with shop.http.get(f"{shop.url}/v1/products/{sku}", headers=headers) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_status_0_after_its_last_response(
    tmp_path: Path, number: signal.Signals
) -> None:
    slow = Slow()
    async with edge(tmp_path, slow.servicer()) as shop:
        answer = asyncio.create_task(read(shop))
        await slow.reached.wait()
        shop.process.signal(number)
        await shop.process.log_record("draining")
        slow.free.set()
        status, product = await answer
        assert (status, product["sku"]) == (200, "TEA-0001")
        assert await shop.exit_status() == 0
    assert shop.log[-1]["message"] == "stopped"


async def test_one_process_for_rest_and_one_for_grpc_serve_the_same_orders(tmp_path: Path) -> None:
    """As in docs/operations.md."""
    clock = FakeClock()
    async with (
        start_inventory(await seed(tmp_path / "inventory.db"), SpanCapture("i"), clock) as stock,
        start_pricing(await seed(tmp_path / "pricing.db"), SpanCapture("p"), clock) as prices,
        running("api_edge", inventory_target=stock, pricing_target=prices, drain_seconds="0") as rest,
        running(
            "api_edge", listen="", grpc_listen=FREE, inventory_target=stock, pricing_target=prices, drain_seconds="0"
        ) as rpc,
        aiohttp.ClientSession() as http,
        grpc.aio.insecure_channel(await rpc.grpc_address()) as channel,
    ):
        stub: Any = storefront_service_pb2_grpc.StorefrontServiceStub(channel)
        line = storefront_service_pb2.NewOrderLine(sku="TEA-0001", quantity=2)
        order = (await stub.PlaceOrder(storefront_service_pb2.PlaceOrderRequest(lines=[line]))).order
        async with http.get(f"http://{await rest.address()}/v1/orders/{order.order_id}") as response:
            assert (response.status, (await response.json())["state"]) == (200, "RESERVED")
        for process in (rest, rpc):
            process.signal(signal.SIGTERM)
            assert await process.exit_status() == 0
            assert len([line for line in process.lines if "listening on" in line]) == 1


async def test_a_second_signal_skips_drain_and_grace_and_ends_the_process_with_status_0(tmp_path: Path) -> None:
    slow = Slow()
    async with edge(tmp_path, slow.servicer(), EDGE_DRAIN_SECONDS="60") as shop:
        answer = asyncio.create_task(read(shop))
        await slow.reached.wait()
        shop.process.signal(signal.SIGTERM)
        await shop.process.log_record("draining")
        shop.process.signal(signal.SIGTERM)
        status, problem = await answer
        assert (status, problem["reason"]) == (503, "SHUTTING_DOWN")
        assert await shop.exit_status() == 0


async def test_sigterm_under_load_completes_every_request_and_exports_every_span(tmp_path: Path) -> None:
    collector, answered = Collector(), set[str]()

    async def ask_until_refused(shop: Edge) -> None:
        patient = {"X-Request-Timeout-Ms": "15000"}
        while True:
            try:
                async with shop.http.get(f"{shop.url}/v1/products/TEA-0001", headers=patient) as response:
                    assert response.status == 200
                    await response.read()
                    answered.add(response.headers["X-Trace-Id"])
            except (aiohttp.ClientConnectionError, ConnectionError):  # the request was not read
                return

    async with (
        start_collector(collector) as exporter,
        edge(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=exporter, EDGE_DRAIN_SECONDS="0.2") as shop,
    ):
        clients = [asyncio.create_task(ask_until_refused(shop)) for _ in range(10)]
        await shop.process.log_record("GET ")
        shop.process.signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        assert await shop.exit_status() == 0
    logged = {entry["trace_id"] for entry in shop.log if entry["logger"] == "api_edge.access"}
    assert len(answered) >= 10
    assert logged == answered
    assert collector.traces["GET /v1/products/{sku}"] == answered


class RejectingCollector(trace_service_pb2_grpc.TraceServiceServicer):
    async def Export(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not from you")


@asynccontextmanager
async def start_rejecting_collector() -> AsyncIterator[str]:
    """Starts a collector that accepts no spans. Yields its address."""
    server = grpc.aio.server()
    add: Callable[[RejectingCollector, grpc.aio.Server], None] = (
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    )
    add(RejectingCollector(), server)
    async with start_server(server) as address:
        yield address


@pytest.mark.parametrize(
    ("collector", "reason"), [("absent", "UNAVAILABLE"), ("silent", "CANCELLED"), ("rejecting", "PERMISSION_DENIED")]
)
async def test_without_a_collector_the_process_serves_stops_and_logs_the_lost_spans_once(
    tmp_path: Path, collector: str, reason: str
) -> None:
    async with AsyncExitStack() as stack:
        if collector == "rejecting":
            address = await stack.enter_async_context(start_rejecting_collector())
        else:
            address = stack.enter_context(absent_server(silent=collector == "silent"))
        endpoint = f"http://{address}"
        shop = await stack.enter_async_context(
            edge(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="50")
        )
        statuses = [(await read(shop))[0] for _ in range(20)]
        shop.process.signal(signal.SIGTERM)
        assert await shop.exit_status() == 0
    assert statuses == [200] * 20
    *before, lost = [entry for entry in shop.log if entry["logger"].startswith(("meshkit.telemetry", "opentel"))]
    assert lost["lost_spans"] == 60, "each request has an HTTP span and the spans of two calls"
    assert lost["message"].startswith(f"lost 60 of 60 spans: 60 not delivered ({reason}: ")
    assert [entry["message"].partition(":")[0] for entry in before] in ([], ["spans cannot be exported and are lost"])


async def test_each_request_is_one_line_of_json_with_its_trace_also_if_its_client_disconnects(tmp_path: Path) -> None:
    slow = Slow()
    async with edge(tmp_path, slow.servicer()) as shop:
        answer = asyncio.create_task(read(shop))
        await slow.reached.wait()
        answer.cancel()
        await shop.process.log_record("GET /v1/products/TEA-0001 499")
        slow.free.set()
        assert (await read(shop))[0] == 200
        status, problem = await read(shop, "NO-1")
        await shop.http.get(f"{shop.url}/livez")
        shop.process.signal(signal.SIGTERM)
        assert await shop.exit_status() == 0
    _, found, missing = [entry for entry in shop.log if "GET " in entry["message"]]
    assert found["message"] == "GET /v1/products/TEA-0001 200"
    assert (missing["message"], missing["trace_id"]) == ("GET /v1/products/NO-1 404", problem["trace_id"])
    assert status == 404
    assert missing.keys() >= {"time", "level", "service", "method", "path", "status", "duration_ms", "span_id"}
    assert missing["peer"].startswith("127.0.0.1:")


async def test_addresses_in_the_log_are_written_as_in_a_url() -> None:
    async with running("api_edge", listen="[::]:0", drain_seconds="0") as process, aiohttp.ClientSession() as http:
        port = (await process.log_record("listening on [::]:"))["port"]
        for host in ("127.0.0.1", "[::1]"):
            async with http.get(f"http://{host}:{port}/nothing") as response:
                assert response.status == 404
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"nonsense\r\n\r\n")
        await reader.read()
        writer.close()
        await process.log_record("refused a request from [::1]:")
    peers = [record["peer"] for record in process.records if "peer" in record]
    assert [peer.rpartition(":")[0] for peer in peers] == ["127.0.0.1", "[::1]", "[::1]"]


@pytest.mark.parametrize(
    ("sampler", "argument", "sampled"),
    [
        ("always_off", "", False),
        ("parentbased_traceidratio", "1", True),
    ],
)
async def test_the_response_and_the_log_show_the_decision_of_the_sampler(
    tmp_path: Path, sampler: str, argument: str, *, sampled: bool
) -> None:
    collector = Collector()
    async with (
        start_collector(collector) as exporter,
        edge(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=exporter,
            OTEL_TRACES_SAMPLER=sampler,
            OTEL_TRACES_SAMPLER_ARG=argument,
            EDGE_TRACE_URL="http://traces.test/{trace_id}",
        ) as shop,
    ):
        async with shop.http.get(f"{shop.url}/v1/products/TEA-0001?strict=true") as answer:
            headers, trace = answer.headers, answer.headers["X-Trace-Id"]
        shop.process.signal(signal.SIGTERM)
        assert await shop.exit_status() == 0
    flags = int(headers["traceresponse"].rpartition("-")[2], 16)
    assert (bool(flags & 1), "Link" in headers) == (sampled, sampled)
    assert set().union(*collector.traces.values()) == ({trace} if sampled else set())
    [line] = [entry for entry in shop.log if entry["logger"] == "api_edge.access"]
    assert (line["trace_id"], int(line["span_id"], 16) != 0) == (trace, True)


async def test_without_telemetry_the_process_serves_and_names_no_trace(tmp_path: Path) -> None:
    collector = Collector()
    async with (
        start_collector(collector) as exporter,
        edge(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=exporter, OTEL_SDK_DISABLED="true", OTEL_PROPAGATORS="none") as shop,
    ):
        async with shop.http.get(f"{shop.url}/v1/products/TEA-0001?strict=true") as answer:
            assert answer.status == 200
        shop.process.signal(signal.SIGTERM)
        assert await shop.exit_status() == 0
    assert not {"X-Trace-Id", "traceresponse", "Link"} & answer.headers.keys()
    assert collector.traces == {}
    assert [entry for entry in shop.log if entry["level"] != "INFO"] == []


async def test_an_address_of_another_machine_ends_the_start_with_one_line() -> None:
    async with running("api_edge", listen="192.0.2.1:8080") as process:
        assert await process.exit_status() == 1
    assert process.lines == ["cannot listen on 192.0.2.1:8080: Cannot assign requested address\n"]
