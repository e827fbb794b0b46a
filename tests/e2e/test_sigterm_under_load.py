"""SIGTERM to each process of the mesh under load: the trace of every answered request is whole in the trace backend.

AIOMESH_SIGTERM_ROUNDS says how often each process is ended; once if it is not set.
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
"""How many ask at the same time, and how many orders they have placed when the signal comes."""

PATIENT = {"X-Request-Timeout-Ms": "15000"}
RPC_STATUS = "rpc.response.status_code"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + 30 * ROUNDS)]


(EDGE,) = [service for service in read_services() if service.protocol == "http"]
CALLED = [service for service in read_services() if service.name in EDGE.after]
VICTIMS = [EDGE.name, *EDGE.after]


class Mesh:
    """The processes of the edge and of what it calls, which export to a store, and what their clients were answered."""

    def __init__(self, folder: Path, store: TraceStore, exporter: str) -> None:
        self.store = store
        self.answers: dict[str, int] = {}
        self.ended: list[ServiceProcess] = []
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
        """A process that serves. It must end by itself when the block asks it to, or else is asked at its end."""
        listen = f"127.0.0.1:{self._ports[name]}"
        async with running(name, self._exporter, listen=listen, **self._settings[name]) as process:
            await process.logged("listening on" if name == EDGE.name else "is SERVING")
            yield process
            if process.process.returncode is None:
                process.signal(signal.SIGTERM)
            assert await process.ended() == 0
        self.ended.append(process)

    async def load(self, http: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        """Reads and orders, one after the other, until it is to stop or the edge takes no more connections."""
        edge = f"http://127.0.0.1:{self._ports[EDGE.name]}"
        order = {"lines": [{"sku": "ACC-0005", "quantity": 1}]}
        while not stop.is_set():
            for method, path, body in (("GET", "/v1/products/TEA-0001", None), ("POST", "/v1/orders", order)):
                try:
                    async with http.request(method, edge + path, json=body, headers=PATIENT) as answer:
                        text = await answer.text()
                        assert answer.status in {200, 201, 503}, text
                        self.answers[answer.headers["X-Trace-Id"]] = answer.status
                except (aiohttp.ClientConnectionError, ConnectionError):  # before anything of it was read
                    return

    def orders(self) -> int:
        """How many have been placed, which takes all processes."""
        return sum(status == 201 for status in self.answers.values())


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    store = TraceStore(max_spans=1_000_000, max_bytes=1_000_000_000)
    async with start_server(build_receiver(store)) as address:
        yield Mesh(tmp_path, store, f"http://{address}")


async def end_under_load(mesh: Mesh, victim: str) -> None:
    """Starts the process, and ends it by SIGTERM while clients ask."""
    stop = asyncio.Event()
    async with mesh.process(victim) as process, aiohttp.ClientSession() as http, asyncio.TaskGroup() as clients:
        before = mesh.orders()
        for _ in range(CLIENTS):
            clients.create_task(mesh.load(http, stop))
        while mesh.orders() < before + ORDERS:
            await asyncio.sleep(0.01)
        process.signal(signal.SIGTERM)
        await process.ended()
        stop.set()


@pytest.mark.parametrize("victim", VICTIMS)
async def test_sigterm_under_load_loses_no_span_of_an_answered_request(mesh: Mesh, victim: str) -> None:
    others = [name for name in VICTIMS if name != victim]
    async with AsyncExitStack() as stack:
        for name in others:
            await stack.enter_async_context(mesh.process(name))
        for _ in range(ROUNDS):
            await end_under_load(mesh, victim)

    assert len(mesh.ended) == ROUNDS + len(others)
    for trace_id, status in mesh.answers.items():
        assert_whole(spans_of(mesh.store, trace_id), status)
    for process in mesh.ended:
        assert_told_of_no_loss(process, mesh.store)


def spans_of(store: TraceStore, trace_id: str) -> list[Span]:
    trace = store.trace(bytes.fromhex(trace_id))
    return [Span.FromString(span.encoded) for span in trace.spans] if trace else []


def attribute(span: Span, key: str) -> object:
    values = {item.key: item.value for item in span.attributes}
    return getattr(values[key], str(values[key].WhichOneof("value")))


def assert_whole(spans: list[Span], status: int) -> None:
    """One HTTP span with the status that was answered, no span without its parent, a server span for each good call."""
    (root,) = [span for span in spans if not span.parent_span_id]
    assert attribute(root, "http.response.status_code") == status
    assert {span.parent_span_id for span in spans if span is not root} <= {span.span_id for span in spans}
    calls = [span for span in spans if span.kind == Span.SPAN_KIND_CLIENT and span.parent_span_id == root.span_id]
    assert len(calls) >= 2
    for call in calls:
        served = [attribute(span, RPC_STATUS) for span in spans if span.parent_span_id == call.span_id]
        assert attribute(call, RPC_STATUS) != "OK" or "OK" in served


def assert_told_of_no_loss(process: ServiceProcess, store: TraceStore) -> None:
    """The process logged nothing about its export, and every request or call that it did log is in the store."""
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
