"""The edge on each server that `EDGE_SERVER` selects, and which of them keep a promise."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from api_edge.settings import Settings
from tests.edge.mesh import start_edge, trace_id_of
from tests.servers.http2 import http2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import trustme
    from opentelemetry.sdk.trace import ReadableSpan

    from meshkit.lifecycle import Stop
    from tests.edge.mesh import Mesh
    from tests.edge.protocols.client import Trace
    from tests.edge.test_disconnect import Backends
    from tests.servers.http2 import Http2

SERVERS = ("uvicorn", "hypercorn", "granian")
LONG = 60.0
"""Seconds of a drain or a grace that no test waits for."""

READ = "/v1/products/TEA-0001"
PATIENT = {"X-Request-Timeout-Ms": "15000"}


def on_servers(**broken: str) -> pytest.MarkDecorator:
    """Runs a test on each server. Those that do not keep the promise are named, with a link to their project."""
    marks = {name: [pytest.mark.xfail(reason=reason, strict=True)] for name, reason in broken.items()}
    return pytest.mark.parametrize("server", [pytest.param(name, marks=marks.get(name, ())) for name in SERVERS])


def on_http2(**broken: str) -> pytest.MarkDecorator:
    """The same for what needs HTTP/2."""
    return on_servers(uvicorn="HTTP/2 is an experiment there: https://uvicorn.dev/concepts/http2/", **broken)


@dataclass(frozen=True)
class Edge:
    """A running edge on one server."""

    address: tuple[str, int]
    stop: Stop
    task: asyncio.Task[None]

    @property
    def target(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    @asynccontextmanager
    async def streams(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Http2]:
        """A connection of HTTP/2 on which a request has been answered."""
        async with http2(self.address, context) as client:
            assert (await client.get("/livez")).status == 200
            yield client

    async def until_refused(self) -> None:
        """Waits until the edge accepts no more connections."""
        while True:
            try:
                _, writer = await asyncio.open_connection(*self.address)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0)


@dataclass(frozen=True)
class Shop:
    """The backends, and edges on them.

    Attributes:
        edges: one on each server, by its name.
        folder: has the certificate of `authority` for 127.0.0.1.
    """

    mesh: Mesh
    backends: Backends
    edges: dict[str, Edge]
    folder: Path
    authority: trustme.CA

    @asynccontextmanager
    async def start(self, server: str, **settings: Any) -> AsyncIterator[Edge]:
        """Starts another edge, which ends in a hurry."""
        targets = {"inventory_target": self.mesh.inventory_address, "pricing_target": self.mesh.pricing_address}
        defaults: dict[str, Any] = {"drain_seconds": 0, "grace_seconds": 5, "server": server}
        async with start_edge(Settings(**targets | defaults | settings), self.mesh.edge) as (url, stop, task):
            host, _, port = url.removeprefix("http://").partition(":")
            try:
                yield Edge((host, int(port)), stop, task)
            finally:
                stop.request()  # and again, at the end of `start_edge`: it waits for nothing

    @property
    def tls(self) -> dict[str, str]:
        """The settings for TLS."""
        return {"tls_cert": str(self.folder / "cert.pem"), "tls_key": str(self.folder / "key.pem")}

    def context(self, *protocols: str) -> ssl.SSLContext:
        """That of a client that offers these protocols."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.set_alpn_protocols(protocols)
        return context

    async def ended(self, trace: Trace) -> ReadableSpan:
        """The span of a request, which waits until it has ended."""
        await until(lambda: self._children(trace))
        return self._children(trace)[0]

    async def until_cancelled(self, calls: int) -> None:
        """Waits until so many handlers of the backends are cancelled."""
        await until(lambda: self.backends.cancelled >= calls)

    async def until_called(self, trace: Trace, calls: int) -> None:
        """Waits until a request has so many spans of calls."""
        await until(lambda: len([span for span in self.mesh.edge.spans() if _is_of(span, trace)]) >= calls)

    def _children(self, trace: Trace) -> list[ReadableSpan]:
        return [span for span in self.mesh.edge.spans() if span.parent and span.parent.span_id == trace.parent]


def _is_of(span: ReadableSpan, trace: Trace) -> bool:
    return trace_id_of(span) == trace.trace_id


async def until(condition: Callable[[], object]) -> None:
    """Waits until a condition is true."""
    while not condition():
        await asyncio.sleep(0.001)
