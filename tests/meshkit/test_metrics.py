"""The metrics of the processes, as Prometheus and an OTLP collector receive them."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import psutil
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

from inventory.app import MIGRATIONS
from inventory.domain import DatabaseUnavailable
from inventory.seed import seed
from meshkit.database import check_database
from meshkit.database.database import Database
from meshkit.telemetry.prometheus import MetricsPage
from meshkit.testing import SpanCapture, start_server
from tests.databases import Hold
from tests.edge.mesh import absent_server
from tests.meshkit.echo import SERVICE, echo
from tests.meshkit.scrape import parse, samples, scrape, value
from tests.repository import ROOT
from tests.service_process import FREE, channel_to, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint
    from opentelemetry.sdk.trace import ReadableSpan
    from prometheus_client import Metric

    from tests.meshkit.scrape import Page
    from tests.service_process import ServiceProcess

INVENTORY = "aiomesh.inventory.v1.InventoryService"
PRICING = "aiomesh.pricing.v1.PricingService"
DOCUMENTED = ROOT / "docs" / "telemetry.md"
UNITS = {"s": "_seconds"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNSAMPLED = "0af7651916cd43dd8448eb211c80319c"

pytestmark = pytest.mark.timeout(60)  # they start processes

Row = tuple[str, frozenset[str]]
"""The type of a metric and its possible labels."""


def documented_metrics(*processes: str) -> dict[str, Row]:
    """The rows of some processes in the table of docs/telemetry.md, by Prometheus' name."""
    rows = re.findall(
        r"^\| `([a-z._]+)` \| (\w+) \| (\w+) \| `([^`]+)` \|(.*)\|$", DOCUMENTED.read_text(), re.MULTILINE
    )
    return {
        prometheus_name(name) + UNITS.get(unit, ""): (
            kind,
            frozenset(map(prometheus_name, re.findall(r"`([^`]+)`", attributes))),
        )
        for name, process, kind, unit, attributes in rows
        if process in processes
    }


def prometheus_name(name: str) -> str:
    return name.replace(".", "_")


def emitted_metrics(page: Page) -> dict[str, Row]:
    return {name: (family.type, frozenset(labels(family))) for name, family in page.items() if name != "target_info"}


def labels(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} - {"le"}


@asynccontextmanager
async def inventory(
    folder: Path, environment: Mapping[str, str] | None = None, **settings: str
) -> AsyncIterator[ServiceProcess]:
    """The process, with its metrics page on a free port."""
    defaults = {"database_url": f"sqlite:///{folder / 'inventory.db'}", "metrics_listen": "127.0.0.1:0"}
    async with running("inventory", environment, **(defaults | settings)) as process:
        await process.log_record("is SERVING")
        yield process


async def page_of(process: ServiceProcess, *metrics: str) -> Page:
    return await sampled_page(f"http://127.0.0.1:{(await process.log_record('metrics on'))['port']}/metrics", *metrics)


async def sampled_page(url: str, *metrics: str) -> Page:
    """The page of a process, once it has sampled its event loop, and has these metrics."""
    while not {"meshkit_event_loop_lag_seconds", *metrics} <= (page := await scrape(url)).keys():
        await asyncio.sleep(0.01)
    return page


async def code_of(channel: grpc.aio.Channel, method: str, **headers: str) -> grpc.StatusCode:
    """The status code of a call with an empty request."""
    call: Any = channel.unary_unary(f"/{method}")
    code: grpc.StatusCode = await call(b"", metadata=list(headers.items())).code()
    return code


async def test_the_table_names_every_metric_of_the_processes_and_its_labels(tmp_path: Path) -> None:
    with absent_server() as away:
        async with inventory(tmp_path) as stock, channel_to(stock) as channel:
            targets = {"inventory_target": await stock.address(), "pricing_target": away}
            async with (
                running("api_edge", drain_seconds="0", grpc_listen=FREE, **targets) as edge,
                aiohttp.ClientSession() as http,
            ):
                url = f"http://{await edge.address()}"
                for query, status in (("", 200), ("?strict=true", 503)):
                    async with http.get(f"{url}/v1/products/TEA-0001{query}") as answer:
                        assert answer.status == status
                async with grpc.aio.insecure_channel(await edge.grpc_address()) as to_edge:
                    for server in (channel, to_edge):
                        assert await code_of(server, f"{INVENTORY}/Nothing") is grpc.StatusCode.UNIMPLEMENTED
                served = "rpc_server_call_duration_seconds"  # a call may be measured after its client has the status
                shown = await sampled_page(f"{url}/metrics", served), await page_of(stock, served)
    assert emitted_metrics(shown[0]) == documented_metrics("edge", "all")
    assert emitted_metrics(shown[1]) == documented_metrics("backends", "all")
    assert {sample.labels["rpc_method"] for sample in samples(shown[0], "meshkit_rpc_client_active_calls")} == {
        f"{INVENTORY}/GetStock",
        f"{PRICING}/GetPrice",
    }


async def test_the_metrics_count_unknown_methods_as_one(tmp_path: Path) -> None:
    async def unary(request: bytes, context: object) -> bytes:
        return request

    pages = MetricsPage(), MetricsPage()
    async with echo(UnaryUnary=unary, pages=pages) as served, grpc.aio.insecure_channel(served.address) as stranger:
        assert await served.unary() == b"hello"
        for number in range(20):
            for method in (f"{SERVICE}/{number}", f"test.Nothing/{number}"):
                assert await code_of(stranger, method) is grpc.StatusCode.UNIMPLEMENTED
        spans = await ended(served.server, 41)
    page = parse(pages[1].render("", "")[1].decode())
    duration = "rpc_server_call_duration_seconds"
    assert {sample.labels["rpc_method"] for sample in samples(page, duration, "_count")} == {
        f"{SERVICE}/UnaryUnary",
        "_OTHER",
    }
    assert value(page, duration, "_count", rpc_method="_OTHER", rpc_response_status_code="UNIMPLEMENTED") == 40
    assert {(span.name, (span.attributes or {}).get("rpc.method")) for span in spans} == {
        (f"{SERVICE}/UnaryUnary", f"{SERVICE}/UnaryUnary"),
        ("grpc", "_OTHER"),
    }
    assert f"{SERVICE}/7" in {(span.attributes or {}).get("rpc.method_original") for span in spans}


@pytest.mark.parametrize("arity", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_an_unknown_method_gets_the_same_response_as_from_grpc(arity: str) -> None:
    async def unary(request: bytes, context: object) -> bytes:
        return request

    async with echo(UnaryUnary=unary) as served, grpc.aio.insecure_channel(served.address) as stranger:
        request = b"" if arity.startswith("unary") else iter([b"", b""])
        call = getattr(stranger, arity)(f"/{SERVICE}/Nothing")(request)
        await call.code()
        (span,) = await ended(served.server, 1)
        assert (span.attributes or {})["rpc.response.status_code"] == "UNIMPLEMENTED"
        if arity.startswith("unary"):  # a client that still writes when the status arrives may report INTERNAL
            assert (await call.code(), await call.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


async def test_active_calls_are_counted_until_they_end() -> None:
    reached, free = asyncio.Event(), asyncio.Event()

    async def unary(request: bytes, context: object) -> bytes:
        reached.set()
        await free.wait()
        return request

    pages = MetricsPage(), MetricsPage()

    def active() -> list[float]:
        names = ("meshkit_rpc_client_active_calls", "meshkit_rpc_server_active_calls")
        return [value(parse(page.render("", "")[1].decode()), name) for page, name in zip(pages, names, strict=True)]

    async with echo(UnaryUnary=unary, pages=pages) as served:
        calls = [asyncio.create_task(served.unary()) for _ in range(3)]
        await reached.wait()
        while active() != [3, 3]:
            await asyncio.sleep(0.001)
        calls[0].cancel()
        while active() != [2, 2]:
            await asyncio.sleep(0.001)
        free.set()
        await asyncio.wait(calls)
        while active() != [0, 0]:
            await asyncio.sleep(0.001)


async def test_a_duration_has_the_status_of_its_call() -> None:
    async def unary(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(grpc.StatusCode[request.decode()], "as asked")
        raise AssertionError

    pages = MetricsPage(), MetricsPage()
    async with echo(UnaryUnary=unary, pages=pages) as served:
        for code in ("NOT_FOUND", "INTERNAL"):
            with pytest.raises(grpc.aio.AioRpcError):
                await served.unary(code.encode())
        await ended(served.server, 2)
    client, server = (parse(page.render("", "")[1].decode()) for page in pages)
    for code, failed in (("NOT_FOUND", ""), ("INTERNAL", "INTERNAL")):
        outcome = {"rpc_response_status_code": code}
        assert value(client, "rpc_client_call_duration_seconds", "_count", **outcome, error_type=code) == 1
        assert value(server, "rpc_server_call_duration_seconds", "_count", **outcome, error_type=failed) == 1


async def ended(capture: SpanCapture, count: int) -> list[ReadableSpan]:
    while len(capture.spans()) < count:
        await asyncio.sleep(0.001)
    return capture.spans()


async def test_there_is_no_metrics_page_without_the_setting(tmp_path: Path) -> None:
    async with inventory(tmp_path, metrics_listen="") as process:
        assert not [line for line in process.lines if "metrics on" in line]
        assert {connection.laddr.port for connection in listening_sockets(process)} == {
            int((await process.address()).rpartition(":")[2])
        }


def listening_sockets(process: ServiceProcess) -> list[Any]:
    connections = psutil.Process(process.process.pid).net_connections("tcp")
    return [connection for connection in connections if connection.status == psutil.CONN_LISTEN]


class Collector(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Stores the durations exported to it, by metric."""

    def __init__(self) -> None:
        self.points: dict[str, list[HistogramDataPoint]] = {}

    async def Export(self, request: Any, context: object) -> Any:
        for resource in request.resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                self.points.setdefault(metric.name, []).extend(metric.histogram.data_points)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.aio.server()
    add: Callable[..., None] = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add(collector, server)
    async with start_server(server) as address:
        yield collector, f"http://{address}"


async def test_an_otlp_endpoint_gets_durations_with_their_traces(tmp_path: Path) -> None:
    async with collecting() as (collector, endpoint):
        variables = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint}
        async with inventory(tmp_path, variables, metrics_listen="") as process, channel_to(process) as channel:
            for trace, sampled in ((TRACE, "01"), (UNSAMPLED, "00")):
                await code_of(channel, f"{INVENTORY}/GetStock", traceparent=f"00-{trace}-{PARENT}-{sampled}")
            process.process.send_signal(signal.SIGTERM)
            assert await process.exit_status() == 0
    points = collector.points["rpc.server.call.duration"]
    assert sum(point.count for point in points) == 2
    assert {exemplar.trace_id.hex() for point in points for exemplar in point.exemplars} == {TRACE}
    assert not [line for line in process.lines if "opentelemetry" in line]


async def test_a_pool_reports_its_connections_and_waiting_requests(tmp_path: Path) -> None:
    page = MetricsPage()
    telemetry = SpanCapture("i", page=page).telemetry
    tracer, unavailable = telemetry.tracer_provider.get_tracer("i"), DatabaseUnavailable
    url = f"sqlite:///{tmp_path / 'i.db'}"
    database = Database(url, unavailable=unavailable, tracer=tracer, meter=telemetry.meter, patience=60)
    hold = Hold()

    def writers(metric: str, **state: str) -> float:
        found = parse(page.render("", "")[1].decode())
        return value(found, f"db_client_connection_{metric}", db_client_connection_pool_name="writers", **state)

    try:
        await check_database(database, MIGRATIONS, seed)
        assert (writers("max"), writers("pending_requests")) == (1, 0)
        assert writers("count", db_client_connection_state="used") == 0
        writes = [asyncio.create_task(database.write(hold)) for _ in range(3)]
        await hold.begun.wait()
        assert writers("count", db_client_connection_state="used") == 1
        assert writers("pending_requests") == 2
        hold.let_go.set()
        await asyncio.gather(*writes)
        assert writers("pending_requests") == 0
        assert writers("count", db_client_connection_state="idle") == 1
    finally:
        await database.close()
