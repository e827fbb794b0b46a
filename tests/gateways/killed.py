"""Edges as processes of their own, which a test kills behind a gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from localmesh.probe import all_of, responds, serves, wait_ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.edge.mesh import Mesh
    from tests.gateways.shop import Place

STOREFRONT = "aiomesh.storefront.v1.StorefrontService"


class EdgeProcess:
    """The process of an edge at a place, across its restarts."""

    def __init__(self, mesh: Mesh, place: Place) -> None:
        self._place = place
        self._environment = {
            **os.environ,
            "EDGE_LISTEN": place.rest,
            "EDGE_GRPC_LISTEN": place.rpc,
            "EDGE_INVENTORY_TARGET": mesh.inventory_address,
            "EDGE_PRICING_TARGET": mesh.pricing_address,
            "OTEL_TRACES_EXPORTER": "none",
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Starts it, and waits until it is ready."""
        self._process = await asyncio.to_thread(self._start)
        ready = all_of(responds(self._place.rest_port, "/readyz"), serves(self._place.rpc_port, STOREFRONT))
        await wait_ready(ready)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "api_edge"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops it by SIGSTOP until the end of the block: its ports accept connections, and nothing answers."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Ends it by SIGKILL, in the middle of its requests."""
        if self._process:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


@asynccontextmanager
async def edge_processes(mesh: Mesh, *places: Place) -> AsyncIterator[list[EdgeProcess]]:
    """Edges on the backends of a mesh, which are ready; they are killed at the end of the block."""
    edges = [EdgeProcess(mesh, place) for place in places]
    try:
        await asyncio.gather(*(edge.start() for edge in edges))
        yield edges
    finally:
        for edge in edges:
            await edge.kill()
