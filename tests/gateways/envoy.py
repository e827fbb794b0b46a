"""Envoy in front of edges, with its administration interface and a receiver of its spans; and edges that only fail."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from api_edge.rpc.server import STOREFRONT
from localmesh.gateways.envoy import ENVOY
from localmesh.gateways.envoy_admin import SOCKET, statistic
from localmesh.gateways.gateway import Addresses
from localmesh.gateways.process import LOG
from meshkit.testing import start_server
from tests.gateways.front import Front, installed, process_of
from tests.gateways.shop import until
from tests.ports import held_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    import trustme


class Spans(trace_service_pb2_grpc.TraceServiceServicer):
    """A trace backend that keeps what Envoy exports."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    async def Export(self, request: Any, context: Any) -> Any:
        self.ended += [span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@dataclass(frozen=True)
class Envoy:
    """A running Envoy.

    Attributes:
        front: its process and its clients.
        spans: what it has exported.
        admin: its administration interface.
    """

    front: Front
    spans: Spans
    admin: Path

    async def count(self, name: str) -> int:
        """One of its statistics."""
        return await statistic(self.admin, name)

    async def stop(self) -> int:
        """Stops it as `make up` does; returns its exit status."""
        await self.front.gateway.drain(self.admin.parent)
        self.front.stop()
        return await asyncio.to_thread(self.front.process.wait)

    async def until_it_listens(self) -> None:
        """Waits until its administration interface listens, which is later than its socket exists."""
        while True:
            with suppress(OSError):
                await self.count("server.live")
                return
            await asyncio.sleep(0.01)

    async def until_in_use(self, edges: int) -> None:
        """Waits until its health checks see so many healthy edges."""
        for cluster in ("edge_grpc", "edge_rest"):
            while await self.count(f"cluster.{cluster}.membership_healthy") != edges:
                await asyncio.sleep(0.02)

    async def spans_of(self, trace_id: str, number: int) -> list[Any]:
        """Its spans of a trace, which waits until there are so many."""
        await until(lambda: len(self._of(trace_id)) >= number)
        return self._of(trace_id)

    def _of(self, trace_id: str) -> list[Any]:
        return [span for span in self.spans.ended if span.trace_id.hex() == trace_id]


@asynccontextmanager
async def envoy(
    folder: Path, authority: trustme.CA, rest: Sequence[str], rpc: Sequence[str], healthy: int
) -> AsyncIterator[Envoy]:
    """Starts Envoy in a new folder, which has `cert.pem` beside it, and waits for so many healthy edges."""
    spans, server = Spans(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(spans, server)  # type: ignore[no-untyped-call]
    cert, key, port = folder.parent / "cert.pem", folder.parent / "key.pem", held_port()
    await asyncio.to_thread(installed, ENVOY.name)
    async with start_server(server) as traces:
        addresses = Addresses(f"127.0.0.1:{port}", tuple(rest), tuple(rpc), cert, key, traces)
        async with process_of(ENVOY, folder, addresses) as process:
            front = Front(("127.0.0.1", port), authority, process, ENVOY, folder / LOG)
            started = Envoy(front, spans, folder / SOCKET)
            await started.until_it_listens()
            await started.until_in_use(healthy)
            yield started


class Failing(pb_grpc.StorefrontServiceServicer):
    """An edge that ends each call with the status that the SKU names, or UNAVAILABLE.

    Attributes:
        calls: the method and the metadata of each call.
        remaining: the seconds until the deadline of each call.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.remaining: list[float | None] = []

    async def GetProduct(self, request: Any, context: Any) -> Any:
        await self._fail("GetProduct", context, request.sku if hasattr(grpc.StatusCode, request.sku) else "UNAVAILABLE")

    async def ListProducts(self, request: Any, context: Any) -> Any:
        self.remaining.append(context.time_remaining())
        self.calls.append(("ListProducts", dict(context.invocation_metadata())))
        return pb.ListProductsResponse()

    async def PlaceOrder(self, request: Any, context: Any) -> Any:
        await self._fail("PlaceOrder", context)

    async def GetOrder(self, request: Any, context: Any) -> Any:
        await self._fail("GetOrder", context)

    async def CommitOrder(self, request: Any, context: Any) -> Any:
        await self._fail("CommitOrder", context)

    async def ReleaseOrder(self, request: Any, context: Any) -> Any:
        await self._fail("ReleaseOrder", context)

    async def _fail(self, method: str, context: Any, code: str = "UNAVAILABLE") -> None:
        self.calls.append((method, dict(context.invocation_metadata())))
        await context.abort(grpc.StatusCode[code], "because")


@asynccontextmanager
async def failing_edge() -> AsyncIterator[tuple[Failing, str]]:
    """Starts one, which is healthy. Yields it and its address."""
    servicer, server, checks = Failing(), grpc.aio.server(), health.aio.HealthServicer()
    pb_grpc.add_StorefrontServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set(STOREFRONT.name, health_pb2.HealthCheckResponse.SERVING)
    async with start_server(server) as address:
        yield servicer, address
