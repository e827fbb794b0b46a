"""Two edges on the same backends, and each gateway in front of both."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from api_edge.settings import Settings
from tests.edge.mesh import start_edge, trace_id_of
from tests.edge.test_disconnect import Backends
from tests.gateways.front import front
from tests.ports import held_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import trustme
    from opentelemetry.sdk.trace import ReadableSpan

    from meshkit.lifecycle import Stop
    from tests.edge.mesh import Mesh
    from tests.edge.protocols.client import Trace
    from tests.gateways.front import Front

READ = "/v1/products/TEA-0001"
GET_PRODUCT = "/aiomesh.storefront.v1.StorefrontService/GetProduct"
PATIENT = {"X-Request-Timeout-Ms": "15000"}


class TimedBackends(Backends):
    """Backends that note how many seconds a call had left when it reached them, by its method."""

    def __init__(self) -> None:
        super().__init__()
        self.remaining: dict[str, float] = {}

    async def _call(
        self, method: str, behavior: Callable[[Any, Any], Awaitable[Any]], request: Any, context: Any
    ) -> Any:
        self.remaining[method] = context.time_remaining()
        return await super()._call(method, behavior, request, context)


@dataclass(frozen=True)
class Edge:
    """A running edge."""

    stop: Stop
    task: asyncio.Task[None]


@dataclass(frozen=True)
class Place:
    """The ports of an edge, which it has again after a restart."""

    rest_port: int
    rpc_port: int

    @property
    def rest(self) -> str:
        return f"127.0.0.1:{self.rest_port}"

    @property
    def rpc(self) -> str:
        return f"127.0.0.1:{self.rpc_port}"


def new_place() -> Place:
    """An address at which no edge runs yet."""
    return Place(held_port(), held_port())


@dataclass
class Shop:
    """The backends, two edges that trust the gateways, and the gateways that were started.

    Attributes:
        folder: has the certificate of `authority` for 127.0.0.1.
        places: those of the two edges.
    """

    mesh: Mesh
    backends: TimedBackends
    folder: Path
    authority: trustme.CA
    places: tuple[Place, Place]
    started: int = 0

    @asynccontextmanager
    async def start(self, place: Place, **settings: Any) -> AsyncIterator[Edge]:
        """Starts an edge at a place, which ends in a hurry."""
        defaults: dict[str, Any] = {
            "inventory_target": self.mesh.inventory_address,
            "pricing_target": self.mesh.pricing_address,
            "drain_seconds": 0,
            "grace_seconds": 5,
            "grpc_listen": place.rpc,
            "trusted_proxies": "127.0.0.1",
        }
        async with start_edge(Settings(**defaults | settings), self.mesh.edge, port=place.rest_port) as (_, stop, task):
            try:
                yield Edge(stop, task)
            finally:
                stop.request()  # and again, at the end of `start_edge`: it waits for nothing

    @asynccontextmanager
    async def front(self, name: str, *places: Place, hosts: tuple[str, ...] = ()) -> AsyncIterator[Front]:
        """Starts another gateway, in front of the edges at these places."""
        self.started += 1
        folder = self.folder / f"{name}-{self.started}"
        rest, rpc = tuple(place.rest for place in places), tuple(place.rpc for place in places)
        async with front(name, folder, self.authority, rest, rpc, hosts) as running:
            yield running

    async def ended(self, trace: Trace) -> ReadableSpan:
        """The span of a request, which waits until it has ended."""
        await until(lambda: self._children(trace))
        return self._children(trace)[0]

    async def until_cancelled(self, calls: int) -> None:
        """Waits until so many handlers of the backends are cancelled."""
        await until(lambda: self.backends.cancelled >= calls)

    def _children(self, trace: Trace) -> list[ReadableSpan]:
        spans = (span for span in self.mesh.edge.spans() if trace_id_of(span) == trace.trace_id)
        return [span for span in spans if span.parent and span.parent.span_id == trace.parent]


async def until(condition: Callable[[], object]) -> None:
    """Waits until a condition is true."""
    while not condition():
        await asyncio.sleep(0.001)
