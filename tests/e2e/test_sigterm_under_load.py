"""SIGTERM to each process under load: the trace backend has the complete trace of every completed request.

AIOMESH_SIGTERM_ROUNDS is the number of times that each process is stopped; 1 by default.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from aiomesh.storefront.v1 import storefront_service_pb2, storefront_service_pb2_grpc
from localmesh.services import read_services
from meshkit.testing import start_server
from tests.ports import held_port
from tests.service_process import ServiceProcess, running
from tracebox.receiver import build_receiver
from tracebox.store import TraceStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROUNDS = int(os.environ.get("AIOMESH_SIGTERM_ROUNDS", "1"))
CLIENTS, ORDERS = 4, 12
"""The number of concurrent clients, and of the orders that they place before the signal."""

PATIENT = {"X-Request-Timeout-Ms": "15000"}
RPC_STATUS = "rpc.response.status_code"
HTTP_STATUS = "http.response.status_code"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + 60 * ROUNDS)]


(EDGE,) = [service for service in read_services() if service.protocol == "http"]
CALLED = [service for service in read_services() if service.name in EDGE.after]
VICTIMS = [EDGE.name, *EDGE.after]


class Mesh:
    """The edge and the services that it calls, which export to a store.

    Attributes:
        statuses: what clients got, by trace id.
        refused: the traces of the gRPC calls that the edge refused, or that did not reach it.
    """

    def __init__(self, folder: Path, store: TraceStore, exporter: str) -> None:
        self.store = store
        self.statuses: dict[str, int | str] = {}
        self.refused: list[str] = []
        self.processes: list[ServiceProcess] = []
        self._exporter = {"OTEL_EXPORTER_OTLP_ENDPOINT": exporter}
        self._ports = {name: held_port() for name in VICTIMS}
        self._settings = {service.name: {"drain_seconds": "0.1"} for service in CALLED}
        for service in CALLED:
            if service.database:
                self._settings[service.name]["database_url"] = f"sqlite:///{folder / service.name}.db"
        targets = {f"{name}_target": f"127.0.0.1:{self._ports[name]}" for name in EDGE.after}
        self._grpc_address = f"127.0.0.1:{held_port()}"
        self._settings[EDGE.name] = {"drain_seconds": "0.2", "grpc_listen": self._grpc_address, **targets}

    @asynccontextmanager
    async def process(self, name: str) -> AsyncIterator[ServiceProcess]:
        """A process that serves. It gets SIGTERM at the end of the block if it still runs, and must exit with 0."""
        listen = f"127.0.0.1:{self._ports[name]}"
        async with running(name, self._exporter, listen=listen, **self._settings[name]) as process:
            await process.log_record("listening on" if name == EDGE.name else "is SERVING")
            yield process
            if process.process.returncode is None:
                process.signal(signal.SIGTERM)
            assert await process.exit_status() == 0
        self.processes.append(process)

    async def load(self, http: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        """Sends reads and orders in turn until `stop` is set or the edge accepts no more connections."""
        edge = f"http://127.0.0.1:{self._ports[EDGE.name]}"
        order = {"lines": [{"sku": "ACC-0005", "quantity": 1}]}
        while not stop.is_set():
            for method, path, body in (("GET", "/v1/products/TEA-0001", None), ("POST", "/v1/orders", order)):
                try:
                    async with http.request(method, edge + path, json=body, headers=PATIENT) as response:
                        text = await response.text()
                        assert response.status in {200, 201, 503}, text
                        self.statuses[response.headers["X-Trace-Id"]] = response.status
                except (aiohttp.ClientConnectionError, ConnectionError):  # the edge has read nothing of this request
                    return

    async def grpc_load(self, stop: asyncio.Event) -> None:
        """As `load`, over gRPC, until the edge refuses a call."""
        line = storefront_service_pb2.NewOrderLine(sku="ACC-0005", quantity=1)
        requests = {
            "GetProduct": storefront_service_pb2.GetProductRequest(sku="TEA-0001"),
            "PlaceOrder": storefront_service_pb2.PlaceOrderRequest(lines=[line]),
        }
        async with grpc.aio.insecure_channel(self._grpc_address) as channel:
            stub: Any = storefront_service_pb2_grpc.StorefrontServiceStub(channel)
            for method in itertools.cycle(requests):
                trace_id = secrets.token_hex(16)
                traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-01"
                call = getattr(stub, method)(requests[method], timeout=15, metadata=[("traceparent", traceparent)])
                code = (await call.code()).name
                if "x-trace-id" not in (await call.trailing_metadata() or ()):
                    # CANCELLED if it came after the time in which the server refuses calls: gRPC never began it.
                    assert code in {"UNAVAILABLE", "CANCELLED"}, await call.details()
                    self.refused.append(trace_id)
                    return
                assert code in {"OK", "UNAVAILABLE"}, await call.details()
                self.statuses[trace_id] = code
                if stop.is_set():
                    return

    def orders(self) -> int:
        """The number of orders placed so far over HTTP. Each needs all processes."""
        return sum(status == 201 for status in self.statuses.values())


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    store = TraceStore(max_spans=1_000_000, max_bytes=1_000_000_000)
    async with start_server(build_receiver(store)) as address:
        yield Mesh(tmp_path, store, f"http://{address}")


async def end_under_load(mesh: Mesh, victim: ServiceProcess) -> None:
    """Stops the process by SIGTERM while clients send requests."""
    stop = asyncio.Event()
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as clients:
        before = mesh.orders()
        for _ in range(CLIENTS):
            clients.create_task(mesh.load(http, stop))
            clients.create_task(mesh.grpc_load(stop))
        while mesh.orders() < before + ORDERS:
            await asyncio.sleep(0.01)
        victim.signal(signal.SIGTERM)
        await victim.exit_status()
        stop.set()


async def test_sigterm_under_load_loses_no_span_of_a_completed_request(mesh: Mesh) -> None:
    async with AsyncExitStack() as stack:
        processes: dict[str, ServiceProcess] = {}
        for victim in VICTIMS * ROUNDS:
            for name in set(VICTIMS) - set(processes):
                processes[name] = await stack.enter_async_context(mesh.process(name))
            await end_under_load(mesh, processes.pop(victim))

    assert len(mesh.processes) == len(VICTIMS) * (ROUNDS + 1) - 1
    for trace_id, status in mesh.statuses.items():
        assert_complete(spans_of(mesh.store, trace_id), status)
    assert [trace_id for trace_id in mesh.refused if len(spans_of(mesh.store, trace_id)) > 1] == []
    assert {"OK", 200, 201} <= {*mesh.statuses.values()}
    for process in mesh.processes:
        assert_no_loss(process, mesh.store)


def spans_of(store: TraceStore, trace_id: str) -> list[Span]:
    trace = store.trace(bytes.fromhex(trace_id))
    return [Span.FromString(span.encoded) for span in trace.spans] if trace else []


def attribute(span: Span, key: str) -> object:
    values = {item.key: item.value for item in span.attributes}
    return getattr(values[key], str(values[key].WhichOneof("value")))


def assert_complete(spans: list[Span], status: int | str) -> None:
    """The trace has one root with this status of HTTP or gRPC, every parent, and the server's span of each good call.

    A lookup that shared its call has internal spans on both sides.
    """
    (root,) = [span for span in spans if span.parent_span_id not in {other.span_id for other in spans}]
    assert attribute(root, HTTP_STATUS if isinstance(status, int) else RPC_STATUS) == status
    kinds = {Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL}
    calls = [span for span in spans if span.kind in kinds and span.parent_span_id == root.span_id]
    assert len(calls) >= 2
    for call in calls:
        statuses = [attribute(span, RPC_STATUS) for span in spans if span.parent_span_id == call.span_id]
        assert attribute(call, RPC_STATUS) != "OK" or "OK" in statuses


def assert_no_loss(process: ServiceProcess, store: TraceStore) -> None:
    """The process logged no problem with its export, and the store has every request and call that it logged."""
    assert [line for line in process.lines if not line.startswith("{")] == []
    records = process.records
    assert [record for record in records if "telemetry" in record["logger"]] == []
    assert [record for record in records if "exception" in record] == []
    served = {
        (record["trace_id"], record["span_id"])
        for record in records
        if record["logger"] in {f"{EDGE.name}.access", "meshkit.rpc"}
    }
    assert len(served) >= ORDERS
    found = {(trace_id, span.span_id.hex()) for trace_id, _ in served for span in spans_of(store, trace_id)}
    assert served <= found
