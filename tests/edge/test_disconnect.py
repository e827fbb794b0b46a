"""A disconnected client cancels its request, and the trace shows it. An order in progress is completed."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from api_edge.rules import order_id
from inventory.servicer import InventoryServicer
from meshkit.errors import Unavailable
from meshkit.telemetry import semconv
from pricing.servicer import PricingServicer
from tests.edge.mesh import Mesh, get, mesh, post_order, trace_id_of, wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.edge.mesh import Wire

    Leave = Callable[[Wire], Awaitable[None]]

PATIENT = {"X_Request_Timeout_Ms": "15000"}
READ = get("/v1/products/TEA-0001", **PATIENT)
ORDER = post_order(Idempotency_Key="k", **PATIENT)
READING, ORDERING = frozenset({"GetStock", "GetPrice"}), frozenset({"ReserveStock", "CreateQuote"})
ORDERED = f"/v1/orders/{order_id('k')}"


class Backends:
    """Inventory and pricing. Calls of `blocked_methods` wait until `free` is set or they are cancelled."""

    def __init__(self) -> None:
        self.blocked_methods: frozenset[str] = frozenset()
        self.free = asyncio.Event()
        self.reached = self.cancelled = 0
        self.quotes = True

    def reset(self) -> None:
        """Blocks no further call, and counts from zero."""
        self.blocked_methods = frozenset()
        self.free = asyncio.Event()
        self.reached = self.cancelled = 0

    def mesh(self, folder: Path) -> AbstractAsyncContextManager[Mesh]:
        return mesh(
            folder,
            inventory_servicer=partial(self._make_servicer, InventoryServicer),
            pricing_servicer=partial(self._make_servicer, PricingServicer),
        )

    async def until_reached(self, calls: int) -> None:
        while self.reached < calls:
            await asyncio.sleep(0.001)

    def _make_servicer(self, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        servicer = make(*arguments, **options)
        for method in filter(str.isidentifier, dir(servicer)):
            if method[0].isupper():
                setattr(servicer, method, partial(self._call, method, getattr(servicer, method)))
        return servicer

    async def _call(
        self, method: str, behavior: Callable[[Any, Any], Awaitable[Any]], request: Any, context: Any
    ) -> Any:
        if method in self.blocked_methods:
            self.reached += 1
            try:
                await self.free.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if method == "CreateQuote" and not self.quotes:
            raise Unavailable("no quotes today")
        return await behavior(request, context)


@pytest.fixture
def backends() -> Backends:
    return Backends()


async def close(connection: Wire) -> None:
    connection._writer.close()


async def half_close(connection: Wire) -> None:
    connection._writer.write_eof()


async def reset(connection: Wire) -> None:
    tcp: socket.socket = connection._writer.get_extra_info("socket")
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection._writer.transport.abort()


async def http_spans(shop: Mesh) -> list[ReadableSpan]:
    return [span for span in await shop.spans() if span.kind is SpanKind.SERVER and span.parent is None]


async def one_trace(shop: Mesh) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The HTTP span and the spans of the RPCs of the only trace."""
    (root,) = await http_spans(shop)
    spans = await shop.spans()
    assert {trace_id_of(span) for span in spans} == {trace_id_of(root)}
    return root, [span for span in spans if semconv.RPC_METHOD in (span.attributes or {})]


def outcome(root: ReadableSpan) -> tuple[object, StatusCode, bool, int]:
    """How an HTTP span ended: its status code, span status, whether it has an error type, and the number of events."""
    attributes = root.attributes or {}
    return (
        attributes.get("http.response.status_code"),
        root.status.status_code,
        semconv.ERROR_TYPE in attributes,
        len(root.events),
    )


CANCELLED = (499, StatusCode.UNSET, False, 0)


def codes(spans: list[ReadableSpan], kind: SpanKind) -> list[object]:
    return [(span.attributes or {})[semconv.RPC_RESPONSE_STATUS_CODE] for span in spans if span.kind is kind]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The logged warnings and errors, without asyncio's warnings about slow callbacks."""
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [message for message in messages if not message.startswith("Executing <")]


READS = {
    READ: {"GetStock", "GetPrice"},
    get("/v1/products/TEA-0001?strict=true", **PATIENT): {"GetStock", "GetPrice"},
    get("/v1/products?sku=TEA-0001&sku=TEA-0002", **PATIENT): {"BatchGetStock", "BatchGetPrices"},
    get("/v1/products", **PATIENT): {"ListStock"},
    get(ORDERED, **PATIENT): {"GetReservation", "GetQuote"},
}
"""Requests, and the backend calls that each one waits for."""


async def assert_cancelled(shop: Mesh, backends: Backends, request_: bytes, calls: set[str], leave: Leave) -> None:
    """Sends a request, disconnects when its calls are in their handlers, and checks all spans of its trace."""
    async with wire(shop) as connection:
        backends.blocked_methods = frozenset(calls)
        await connection.send(request_)
        await backends.until_reached(len(calls))
        await leave(connection)
        root, rpcs = await one_trace(shop)
    assert outcome(root) == CANCELLED
    assert backends.cancelled == len(calls)
    assert codes(rpcs, SpanKind.SERVER) == codes(rpcs, SpanKind.CLIENT) == ["CANCELLED"] * len(calls)
    assert {span.status.status_code for span in rpcs if span.kind is SpanKind.SERVER} == {StatusCode.UNSET}


@pytest.mark.parametrize(("request_", "calls"), READS.items(), ids=[read.split()[1].decode() for read in READS])
async def test_a_disconnected_client_cancels_both_backend_calls_and_the_trace_shows_it(
    tmp_path: Path, backends: Backends, request_: bytes, calls: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with backends.mesh(tmp_path) as shop:
        await assert_cancelled(shop, backends, request_, calls, close)
    assert warnings(caplog) == []


@pytest.mark.parametrize("leave", [half_close, reset])
async def test_a_half_close_or_a_reset_counts_as_a_disconnect(
    tmp_path: Path, backends: Backends, leave: Leave, caplog: pytest.LogCaptureFixture
) -> None:
    async with backends.mesh(tmp_path) as shop:
        await assert_cancelled(shop, backends, READ, READS[READ], leave)
    assert warnings(caplog) == []


async def test_a_disconnect_is_a_499_in_the_log_and_the_metrics(
    tmp_path: Path, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "api_edge.access")
    async with backends.mesh(tmp_path) as shop, wire(shop) as connection:
        backends.blocked_methods = READING
        await connection.send(READ)
        await backends.until_reached(2)
        await close(connection)
        await one_trace(shop)
        metrics = (await shop.get("/metrics")).text
    assert "GET /v1/products/TEA-0001 499" in [record.getMessage() for record in caplog.records]
    assert re.search(r'http_server_request_duration_seconds_count.*code="499".* 1\.0', metrics)
    assert set(re.findall(r"http_server_active_requests{.* (\S+)", metrics)) == {"0.0"}


async def test_a_disconnect_does_not_change_earlier_responses_on_the_connection(
    tmp_path: Path, backends: Backends
) -> None:
    async with backends.mesh(tmp_path) as shop, wire(shop) as connection:
        await connection.send(READ)
        assert (await connection.answer()).status == 200
        backends.blocked_methods = READING
        await connection.send(READ)
        await backends.until_reached(2)
        await close(connection)
        first, second = await http_spans(shop)
    assert (outcome(first)[0], outcome(second)) == (200, CANCELLED)


async def test_a_disconnect_ends_all_traces_of_a_pipeline(
    tmp_path: Path, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    async with backends.mesh(tmp_path) as shop, wire(shop) as connection, wire(shop) as other:
        backends.blocked_methods = READING
        await connection.send(READ * 3)
        await backends.until_reached(2)
        await close(connection)
        backends.free.set()
        await other.send(READ)
        assert (await other.answer()).status == 200
        roots = await http_spans(shop)
    assert {outcome(root)[0] for root in roots} <= {200, 499}
    assert {root.status.status_code for root in roots} == {StatusCode.UNSET}
    assert warnings(caplog) == []


async def test_a_disconnect_before_the_end_of_the_body_places_no_order(
    tmp_path: Path, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    async with backends.mesh(tmp_path) as shop, wire(shop) as connection:
        await connection.send(get("/livez") + ORDER[:-10])
        await connection.answer()
        await close(connection)
        root, rpcs = await one_trace(shop)
    assert (outcome(root), rpcs) == (CANCELLED, [])
    assert warnings(caplog) == []


@pytest.mark.parametrize("path", ["/livez", "/v1/orders"])
async def test_a_disconnect_while_a_too_large_body_is_dropped_is_no_error(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh(tmp_path) as shop, wire(shop) as connection:
        request = get(path, Content_Length="9000000").replace(b"GET", b"POST", 1)
        await connection.send(get("/livez") + request + b"x")
        await connection.answer()
        await close(connection)
        spans = await shop.spans()
    assert [outcome(span) for span in spans] == ([CANCELLED] if path == "/v1/orders" else [])
    assert warnings(caplog) == []


async def test_an_order_of_a_disconnected_client_is_completed_and_a_repeat_returns_it(
    tmp_path: Path, backends: Backends
) -> None:
    async with backends.mesh(tmp_path) as shop, wire(shop) as connection:
        backends.blocked_methods = ORDERING
        await connection.send(ORDER)
        await backends.until_reached(2)
        await close(connection)
        while not shop.edge.spans("POST /v1/orders"):
            await asyncio.sleep(0.001)
        backends.free.set()
        root, rpcs = await one_trace(shop)
        assert outcome(root) == CANCELLED
        assert codes(rpcs, SpanKind.CLIENT) == codes(rpcs, SpanKind.SERVER) == ["OK", "OK"]

        assert (await shop.stock("TEA-0001"))["reserved"] == 2
        repeat = await shop.order(("TEA-0001", 2), key="k")
        assert (repeat.status, repeat.body["state"]) == (201, "RESERVED")
        assert (root.attributes or {})["order.id"] == repeat.body["id"]
        assert (await shop.stock("TEA-0001"))["reserved"] == 2


async def test_an_order_that_fails_after_a_disconnect_reserves_nothing(
    tmp_path: Path, backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    async with backends.mesh(tmp_path) as shop, wire(shop) as connection:
        backends.blocked_methods, backends.quotes = ORDERING, False
        await connection.send(ORDER)
        await backends.until_reached(2)
        await close(connection)
        while not shop.edge.spans("POST /v1/orders"):
            await asyncio.sleep(0.001)
        backends.free.set()
        undo = "aiomesh.inventory.v1.InventoryService/UndoReserveStock"
        while not shop.inventory.spans(undo):
            await asyncio.sleep(0.001)
        root, _ = await one_trace(shop)
        assert outcome(root) == CANCELLED
        assert [trace_id_of(span) for span in shop.inventory.spans(undo)] == [trace_id_of(root)]
        assert (await shop.stock("TEA-0001"))["reserved"] == 0


@pytest.mark.parametrize(
    ("request_", "call", "state"),
    [
        (get(f"{ORDERED}/commit", **PATIENT).replace(b"GET", b"POST", 1), "CommitReservation", "COMMITTED"),
        (get(ORDERED, **PATIENT).replace(b"GET", b"DELETE", 1), "ReleaseReservation", "RELEASED"),
    ],
    ids=["commit", "release"],
)
async def test_a_commit_or_release_of_a_disconnected_client_is_completed(
    tmp_path: Path, backends: Backends, request_: bytes, call: str, state: str
) -> None:
    async with backends.mesh(tmp_path) as shop, wire(shop) as connection:
        await shop.order(("TEA-0001", 2), key="k")
        backends.blocked_methods = frozenset({call})
        await connection.send(request_)
        await backends.until_reached(1)
        await close(connection)
        while not (cancelled := [span for span in shop.edge.spans() if outcome(span)[0] == 499]):
            await asyncio.sleep(0.001)
        assert [outcome(span) for span in cancelled] == [CANCELLED]
        backends.free.set()
        await shop.spans()
        assert (await shop.get(ORDERED)).body["state"] == state
