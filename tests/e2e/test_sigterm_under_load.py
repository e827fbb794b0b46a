"""SIGTERM to each process under load of every protocol: each call that was begun is answered, and its trace complete.

AIOMESH_SIGTERM_ROUNDS is the number of times that each process is stopped; 1 by default. More are shared by two meshes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from localmesh.services import read_services
from meshkit.testing import start_server
from tests.e2e.callers import CALLERS, ORDER, REQUESTS, Edge, NotBegun
from tests.ports import held_port
from tests.service_process import ServiceProcess, running
from tracebox.receiver import build_receiver
from tracebox.store import TraceStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.e2e.callers import Call

ROUNDS = int(os.environ.get("AIOMESH_SIGTERM_ROUNDS", "1"))
SHARES = [share for share in ((ROUNDS + 1) // 2, ROUNDS // 2) if share]
"""The rounds of each mesh: one mesh alone uses one core, and most of its time for a process that starts."""
CLIENTS, ORDERS = 2, 3
"""The number of concurrent clients of each protocol, and of the orders that they place before the signal."""

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
        refused: the traces of the calls that the edge refused, or that did not reach it.
        orders: the number of orders placed so far, by protocol. Each needs all processes.
    """

    def __init__(self, folder: Path, store: TraceStore, exporter: str) -> None:
        folder.mkdir()
        self.store = store
        self.statuses: dict[str, int | str] = {}
        self.refused: list[str] = []
        self.orders: Counter[str] = Counter()
        self.processes: list[ServiceProcess] = []
        self._exporter = {"OTEL_EXPORTER_OTLP_ENDPOINT": exporter}
        self._ports = {name: held_port() for name in VICTIMS}
        self._settings = {service.name: {"drain_seconds": "0.1"} for service in CALLED}
        for service in CALLED:
            if service.database:
                self._settings[service.name]["database_url"] = f"sqlite:///{folder / service.name}.db"
        targets = {f"{name}_target": f"127.0.0.1:{self._ports[name]}" for name in EDGE.after}
        self._edge = Edge(f"http://127.0.0.1:{self._ports[EDGE.name]}", f"127.0.0.1:{held_port()}")
        self._settings[EDGE.name] = {
            "drain_seconds": "0.2",
            "grpc_listen": self._edge.grpc_address,
            "purge_seconds": str(24 * 3600),  # a purge makes calls without spans
            **targets,
        }

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

    async def load(self, protocol: str, stop: asyncio.Event) -> None:
        """Reads and orders in turn until `stop` is set or the edge begins no more calls."""
        async with CALLERS[protocol](self._edge) as call:
            is_answered = partial(self._is_answered, protocol, call)
            for method in itertools.cycle(REQUESTS):
                if stop.is_set() or not (await is_answered(method) or await is_answered(method)):
                    return

    async def _is_answered(self, protocol: str, call: Call, method: str) -> bool:
        """Makes a call. If the edge does not begin it, the next one is made on another connection."""
        trace_id = secrets.token_hex(16)
        try:
            status = await call(method, f"00-{trace_id}-{secrets.token_hex(8)}-01")
        except (NotBegun, aiohttp.ClientConnectionError, ConnectionError):
            self.refused.append(trace_id)
            return False
        assert status in {200, 201, 503, "OK", "UNAVAILABLE"}
        self.statuses[trace_id] = status
        self.orders[protocol] += method == ORDER and status in {201, "OK"}
        return True


@pytest.fixture
async def meshes(tmp_path: Path) -> AsyncIterator[list[Mesh]]:
    store = TraceStore(max_spans=1_000_000, max_bytes=1_000_000_000)
    async with start_server(build_receiver(store)) as address:
        yield [Mesh(tmp_path / str(number), store, f"http://{address}") for number, _ in enumerate(SHARES)]


async def end_under_load(mesh: Mesh, victim: ServiceProcess) -> None:
    """Stops the process by SIGTERM while clients send requests."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        before = mesh.orders.copy()
        for protocol in CLIENTS * [*CALLERS]:
            clients.create_task(mesh.load(protocol, stop))
        while any(mesh.orders[protocol] < before[protocol] + ORDERS for protocol in CALLERS):
            await asyncio.sleep(0.01)
        victim.signal(signal.SIGTERM)
        await victim.exit_status()
        stop.set()


async def test_sigterm_under_load_loses_no_call_and_no_span(meshes: list[Mesh]) -> None:
    async with asyncio.TaskGroup() as group:
        for mesh, rounds in zip(meshes, SHARES, strict=True):
            group.create_task(end_each(mesh, rounds))

    assert sum(len(mesh.processes) for mesh in meshes) == len(VICTIMS) * (ROUNDS + len(SHARES)) - len(SHARES)
    for mesh in meshes:
        assert_whole(mesh)


async def end_each(mesh: Mesh, rounds: int) -> None:
    """Stops each process in turn this many times, and starts it again before the next."""
    async with AsyncExitStack() as stack:
        processes: dict[str, ServiceProcess] = {}
        for victim in VICTIMS * rounds:
            for name in set(VICTIMS) - set(processes):
                processes[name] = await stack.enter_async_context(mesh.process(name))
            await end_under_load(mesh, processes.pop(victim))


def assert_whole(mesh: Mesh) -> None:
    """No call and no span of the mesh is lost."""
    for trace_id, status in mesh.statuses.items():
        assert_complete(spans_of(mesh.store, trace_id), status)
    assert [trace_id for trace_id in mesh.refused if len(spans_of(mesh.store, trace_id)) > 1] == []
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
    assert len(served) >= len(CALLERS) * ORDERS
    found = {(trace_id, span.span_id.hex()) for trace_id, _ in served for span in spans_of(store, trace_id)}
    assert served <= found
