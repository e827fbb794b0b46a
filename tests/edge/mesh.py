"""The mesh in one process: inventory and pricing over gRPC, the edge over HTTP, and the spans of all three."""

# ruff: noqa: ASYNC240 - the files are small and the test's own
from __future__ import annotations

import asyncio
import io
import json
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDict
from opentelemetry.sdk.metrics import MeterProvider
from yarl import URL

import inventory.app
import inventory.settings
import pricing.app
import pricing.settings
import tests.inventory.opened
import tests.pricing.opened
from api_edge.app import build
from api_edge.settings import Settings
from inventory.servicer import InventoryServicer
from meshkit.fastapi.server import listen_socket
from meshkit.lifecycle import Stop
from meshkit.server.health import SERVING
from meshkit.telemetry.prometheus import MetricsPage
from meshkit.testing import FakeClock, SpanCapture, start_server
from pricing.servicer import PricingServicer
from tests.open_spans import OpenSpans
from tests.ports import held_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from meshkit.service import GrpcApp

TRACE_URL = "http://traces.test/trace/{trace_id}"
PROBLEM = "application/problem+json"
PREPARE = {"inventory.db": tests.inventory.opened.prepare_database, "pricing.db": tests.pricing.opened.prepare_database}
SEEDED: dict[str, bytes] = {}
"""The content of the seeded databases, by file name."""


@dataclass(frozen=True)
class Answer:
    """A complete HTTP response. `body` is the parsed JSON, or None for a body of another type."""

    status: int
    headers: Mapping[str, str]
    text: str
    body: Any

    @property
    def trace_id(self) -> str:
        return self.headers["X-Trace-Id"]


@dataclass(frozen=True)
class Mesh:
    """A running mesh. `edge`, `inventory` and `pricing` hold the spans of each service."""

    url: str
    http: aiohttp.ClientSession
    edge: SpanCapture
    inventory: SpanCapture
    pricing: SpanCapture
    stop: Stop
    clock: FakeClock
    open_spans: OpenSpans
    inventory_address: str
    pricing_address: str
    server_task: asyncio.Task[None]
    grpc_address: str = ""

    @property
    def address(self) -> tuple[str, int]:
        url = URL(self.url)
        return url.host or "", url.port or 0

    async def ask(self, method: str, path: str, **request: Any) -> Answer:
        """Sends one request, with exactly the given path."""
        if isinstance(body := request.get("data"), bytes):
            request["data"] = io.BytesIO(body)
        async with self.http.request(
            method, URL(self.url + path, encoded=True), allow_redirects=False, **request
        ) as response:
            text = (await response.read()).decode()
            is_json = response.content_type in {"application/json", PROBLEM}
            return Answer(
                response.status, response.headers, text, await response.json(content_type=None) if is_json else None
            )

    async def get(self, path: str, **request: Any) -> Answer:
        return await self.ask("GET", path, **request)

    async def order(
        self, *lines: tuple[str, int], key: str | None = None, currency: str = "EUR", **request: Any
    ) -> Answer:
        """Posts an order."""
        headers = request.pop("headers", {}) | ({"Idempotency-Key": key} if key else {})
        body = {"currency": currency, "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines]}
        return await self.ask("POST", "/v1/orders", json=body, headers=headers, **request)

    async def stock(self, sku: str) -> dict[str, int]:
        """The stock of a SKU, without its version."""
        answer = await self.get(f"/v1/products/{sku}")
        return {name: answer.body["stock"][name] for name in ("on_hand", "reserved", "available")}

    async def spans(self, trace_id: str | None = None) -> list[ReadableSpan]:
        """The spans of one trace, or of all traces. Waits until every span has ended."""
        await self.open_spans.until_ended()
        every = [span for capture in (self.edge, self.inventory, self.pricing) for span in capture.spans()]
        return [span for span in every if trace_id in {None, trace_id_of(span)}]


class Wire:
    """One HTTP/1.1 connection, on which a test sends bytes of its choice."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> Answer:
        """The next response. Those of the edge have a Content-Length."""
        status, *fields = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers: CIMultiDict[str] = CIMultiDict(line.partition(": ")[::2] for line in fields)
        text = (await self._reader.readexactly(int(headers["Content-Length"]))).decode()
        body = json.loads(text) if "json" in headers["Content-Type"] else None
        return Answer(int(status.split(" ")[1]), headers, text, body)

    async def rest(self) -> bytes:
        """The bytes until the server closes the connection."""
        return await self._reader.read()


async def plentiful_skus(shop: Mesh) -> AsyncIterator[str]:
    """SKUs that have a price and at least 100 units. Tests that share a mesh take a different one each."""
    token = None
    while token != "":
        page = (await shop.get(f"/v1/products?page_size=100&page_token={token or ''}")).body
        for product in page["products"]:
            if product["price"] and product["stock"]["available"] >= 100:
                yield product["sku"]
        token = page["next_page_token"]


@asynccontextmanager
async def wire(shop: Mesh) -> AsyncIterator[Wire]:
    """A connection to the edge."""
    reader, writer = await asyncio.open_connection(*shop.address)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


def get(path: str, **headers: str) -> bytes:
    """A complete GET request."""
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode()


def post_order(sku: str = "TEA-0001", **headers: str) -> bytes:
    """A complete request for an order of two units."""
    body = json.dumps({"lines": [{"sku": sku, "quantity": 2}]})
    headers |= {"Content_Type": "application/json", "Content_Length": str(len(body))}
    return get("/v1/orders", **headers).replace(b"GET", b"POST", 1) + body.encode()


@asynccontextmanager
async def mesh(
    folder: Path,
    *,
    inventory_servicer: Callable[..., InventoryServicer] = InventoryServicer,
    pricing_servicer: Callable[..., PricingServicer] = PricingServicer,
    inventory_target: str | None = None,
    pricing_target: str | None = None,
    trace_url: str = TRACE_URL,
    drain_seconds: float = 0,
    grace_seconds: float = 5.0,
    grpc: bool = False,
    **edge_settings: Any,
) -> AsyncIterator[Mesh]:
    """Starts all three services, with their databases in `folder` and the given servicers on the real stores.

    The edge calls a service at its `target`, if one is given. It serves HTTP, and with `grpc` also gRPC. It has further
    settings as `edge_settings`.
    """
    grpc_address = f"127.0.0.1:{held_port()}" if grpc else ""
    open_spans, clock = OpenSpans(), FakeClock()
    captures = [SpanCapture(name) for name in ("api_edge", "inventory", "pricing")]
    for capture in captures:
        capture.telemetry.tracer_provider.add_span_processor(open_spans)
    edge, stock, prices = captures
    async with (
        start_inventory(await seed(folder / "inventory.db"), stock, clock, inventory_servicer) as inventory_address,
        start_pricing(await seed(folder / "pricing.db"), prices, clock, pricing_servicer) as pricing_address,
        start_edge(
            Settings(
                inventory_target=inventory_target or inventory_address,
                pricing_target=pricing_target or pricing_address,
                trace_url=trace_url,
                drain_seconds=drain_seconds,
                grace_seconds=grace_seconds,
                grpc_listen=grpc_address,
                **edge_settings,
            ),
            edge,
        ) as (url, stop, server_task),
        aiohttp.ClientSession() as http,
    ):
        yield Mesh(
            url,
            http,
            edge,
            stock,
            prices,
            stop,
            clock,
            open_spans,
            inventory_address,
            pricing_address,
            server_task,
            grpc_address,
        )


@asynccontextmanager
async def start_inventory(
    url: str, capture: SpanCapture, clock: FakeClock, servicer: Callable[..., InventoryServicer] = InventoryServicer
) -> AsyncIterator[str]:
    """Starts inventory on a free port and a database, which it migrates and seeds. Yields its address."""
    settings = inventory.settings.Settings(database_url=url)
    async with (
        inventory.app.build(settings, capture.telemetry, clock=clock, servicer=servicer) as app,
        start_service(app) as address,
    ):
        yield address


@asynccontextmanager
async def start_pricing(
    url: str, capture: SpanCapture, clock: FakeClock, servicer: Callable[..., PricingServicer] = PricingServicer
) -> AsyncIterator[str]:
    """Starts pricing on a free port and a database, which it migrates and seeds. Yields its address."""
    settings = pricing.settings.Settings(database_url=url)
    async with (
        pricing.app.build(settings, capture.telemetry, clock=clock, servicer=servicer) as app,
        start_service(app) as address,
    ):
        yield address


@asynccontextmanager
async def start_service(app: GrpcApp) -> AsyncIterator[str]:
    """Starts the service on a free port, SERVING and without its background tasks. Yields its address."""
    await app.check()
    await app.health._publish(SERVING)
    async with start_server(app.server) as address:
        yield address


async def seed(path: Path) -> str:
    """The URL of a migrated and seeded database, which is created once for each service and then copied."""
    url = f"sqlite:///{path}"
    if path.exists():
        return url
    if path.name not in SEEDED:
        async with PREPARE[path.name](url, SpanCapture("seed")):
            pass
        SEEDED[path.name] = path.read_bytes()
    path.write_bytes(SEEDED[path.name])
    return url


@asynccontextmanager
async def start_edge(
    settings: Settings, capture: SpanCapture, *, port: int = 0
) -> AsyncIterator[tuple[str, Stop, asyncio.Task[None]]]:
    """Starts the edge on a port or a free one, as its process does. Yields its URL, its Stop and its server's task."""
    page, stop, listener = MetricsPage(), Stop(), listen_socket(f"127.0.0.1:{port}")
    meters = MeterProvider([page.reader], shutdown_on_exit=False)
    telemetry = replace(capture.telemetry, meter_provider=meters, page=page)
    host, port = listener.getsockname()
    async with build(settings, telemetry) as app:
        server_task = asyncio.create_task(app.serve(stop, listener))
        try:
            yield f"http://{host}:{port}", stop, server_task
        finally:
            stop.request()
            await server_task


@contextmanager
def absent_server(*, silent: bool = False) -> Iterator[str]:
    """An address without a server. It refuses connections, or with `silent` accepts them and never responds."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        if silent:
            reserved.listen()
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


def assert_problem(answer: Answer, status: int, reason: str) -> None:
    """Asserts that the response is a problem (RFC 9457) with all its members, including those that the API adds."""
    problem = answer.body
    assert (answer.status, problem["reason"]) == (status, reason), answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    assert problem["status"] == status
    assert problem["type"] == "urn:aiomesh:problem:" + reason.lower().replace("_", "-")
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"].startswith("/")
    assert problem["trace_id"] == answer.trace_id


def trace_id_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"
