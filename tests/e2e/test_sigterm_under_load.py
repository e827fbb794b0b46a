"""SIGTERM to each process under load: the trace backend has the complete trace of every completed request.

AIOMESH_SIGTERM_ROUNDS is the number of times that each process is stopped; 1 by default.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

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

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + 30 * ROUNDS)]


(EDGE,) = [service for service in read_services() if service.protocol == "http"]
CALLED = [service for service in read_services() if service.name in EDGE.after]
VICTIMS = [EDGE.name, *EDGE.after]


class Mesh:
    """The edge and the services that it calls, which export to a store, and the statuses that their clients got."""

    def __init__(self, folder: Path, store: TraceStore, exporter: str) -> None:
        self.store = store
        self.statuses: dict[str, int] = {}
        self.processes: list[ServiceProcess] = []
        self._exporter = {"OTEL_EXPORTER_OTLP_ENDPOINT": exporter}
        self._ports = {name: held_port() for name in VICTIMS}
        self._settings = {service.name: {"drain_seconds": "0.1"} for service in CALLED}
        for service in CALLED:
            if service.database:
                self._settings[service.name]["database_url"] = f"sqlite:///{folder / service.name}.db"
        targets = {f"{name}_target": f"127.0.0.1:{self._ports[name]}" for name in EDGE.after}
        self._settings[EDGE.name] = {"drain_seconds": "0.2", **targets}

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

    def orders(self) -> int:
        """The number of orders placed so far. Each needs all processes."""
        return sum(status == 201 for status in self.statuses.values())


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    store = TraceStore(max_spans=1_000_000, max_bytes=1_000_000_000)
    async with start_server(build_receiver(store)) as address:
        yield Mesh(tmp_path, store, f"http://{address}")


async def end_under_load(mesh: Mesh, victim: str) -> None:
    """Starts the process, and stops it by SIGTERM while clients send requests."""
    stop = asyncio.Event()
    async with mesh.process(victim) as process, aiohttp.ClientSession() as http, asyncio.TaskGroup() as clients:
        before = mesh.orders()
        for _ in range(CLIENTS):
            clients.create_task(mesh.load(http, stop))
        while mesh.orders() < before + ORDERS:
            await asyncio.sleep(0.01)
        process.signal(signal.SIGTERM)
        await process.exit_status()
        stop.set()


@pytest.mark.parametrize("victim", VICTIMS)
async def test_sigterm_under_load_loses_no_span_of_a_completed_request(mesh: Mesh, victim: str) -> None:
    others = [name for name in VICTIMS if name != victim]
    async with AsyncExitStack() as stack:
        for name in others:
            await stack.enter_async_context(mesh.process(name))
        for _ in range(ROUNDS):
            await end_under_load(mesh, victim)

    assert len(mesh.processes) == ROUNDS + len(others)
    for trace_id, status in mesh.statuses.items():
        assert_complete(spans_of(mesh.store, trace_id), status)
    for process in mesh.processes:
        assert_no_loss(process, mesh.store)


def spans_of(store: TraceStore, trace_id: str) -> list[Span]:
    trace = store.trace(bytes.fromhex(trace_id))
    return [Span.FromString(span.encoded) for span in trace.spans] if trace else []


def attribute(span: Span, key: str) -> object:
    values = {item.key: item.value for item in span.attributes}
    return getattr(values[key], str(values[key].WhichOneof("value")))


def assert_complete(spans: list[Span], status: int) -> None:
    """The trace has one HTTP span with this status, every parent, and a server span for each successful call."""
    (root,) = [span for span in spans if not span.parent_span_id]
    assert attribute(root, "http.response.status_code") == status
    assert {span.parent_span_id for span in spans if span is not root} <= {span.span_id for span in spans}
    calls = [span for span in spans if span.kind == Span.SPAN_KIND_CLIENT and span.parent_span_id == root.span_id]
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
