"""The gRPC server of the edge: budgets, limits, health, reflection, own traces, and its end together with HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from opentelemetry.trace import SpanContext, TraceFlags

from aiomesh.storefront.v1 import storefront_pb2
from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from api_edge.domain import Product, Stock
from api_edge.rpc.server import STOREFRONT, build_rpc_server
from api_edge.rules import MAX_REQUEST_BYTES, MAX_SECONDS, READ_SECONDS
from meshkit.batch_metadata import Members, write_members
from meshkit.deadline import remaining
from meshkit.fastapi.budget import MAX_TIMEOUT_MS
from meshkit.status import read_error
from meshkit.testing import SpanCapture, start_server
from tests.edge.mesh import Mesh, mesh, trace_id_of, wire
from tests.edge.test_draining import LONG, READ, Slow
from tools.protos import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRODUCT = pb.GetProductRequest(sku="TEA-0001")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
STRANGERS = write_members(
    Members(2, [SpanContext(number, number, is_remote=True, trace_flags=TraceFlags(1)) for number in (1, 2)])
)
"""Metadata that would make spans in these two traces, too."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop"), grpc=True) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(shop: Mesh) -> AsyncIterator[grpc.aio.Channel]:
    async with channel_to(shop) as channel:
        yield channel


def channel_to(shop: Mesh) -> AbstractAsyncContextManager[grpc.aio.Channel]:
    return grpc.aio.insecure_channel(shop.grpc_address)


def stub(channel: grpc.aio.Channel) -> Any:
    return pb_grpc.StorefrontServiceStub(channel)


async def failure_of(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code().name, raised.value.details() or ""


async def health_of(channel: grpc.aio.Channel, service: str) -> str:
    health: Any = health_pb2_grpc.HealthStub(channel)
    response = await health.Check(health_pb2.HealthCheckRequest(service=service))
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


async def until_health(channel: grpc.aio.Channel, status: str) -> None:
    while await health_of(channel, STOREFRONT.name) != status:
        await asyncio.sleep(0.001)


class Observing:
    """A storefront that notes the budget of each read."""

    def __init__(self) -> None:
        self.budgets: list[float] = []

    async def product(self, *_: object, **__: object) -> Product:
        self.budgets.append(remaining() or 0)
        return Product(Stock("TEA-0001", "", "", 1, 0, 1, 1), None)


async def test_a_call_has_its_deadline_as_its_budget_or_that_of_rest_and_no_more_than_the_maximum() -> None:
    storefront: Any = Observing()
    server, _ = build_rpc_server(storefront, SpanCapture("edge").telemetry, max_pending=10, public=False)
    async with start_server(server) as address, grpc.aio.insecure_channel(address) as channel:
        for timeout in (None, 10, 1000):
            await stub(channel).GetProduct(PRODUCT, timeout=timeout)
    default, given, most = storefront.budgets
    assert READ_SECONDS - 1 < default <= READ_SECONDS
    assert given == pytest.approx(10, abs=1)
    assert MAX_SECONDS - 1 < most <= MAX_SECONDS == MAX_TIMEOUT_MS / 1000


class Blocked:
    """A storefront whose reads wait until `free` is set."""

    def __init__(self) -> None:
        self.reached, self.free = asyncio.Event(), asyncio.Event()

    async def product(self, *_: object, **__: object) -> Product:
        self.reached.set()
        await self.free.wait()
        return Product(Stock("TEA-0001", "", "", 1, 0, 1, 1), None)


class Buggy(Blocked):
    """The same with a bug."""

    async def product(self, *_: object, **__: object) -> Product:
        await super().product()
        raise LookupError("a secret")


async def test_calls_above_the_limit_are_refused_with_a_delay_and_a_bug_tells_nothing() -> None:
    storefront: Any = Buggy()
    server, _ = build_rpc_server(storefront, SpanCapture("edge").telemetry, max_pending=1, public=False)
    async with start_server(server) as address, grpc.aio.insecure_channel(address) as channel:
        first = stub(channel).GetProduct(PRODUCT)
        await storefront.reached.wait()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(channel).GetProduct(PRODUCT)
        assert (refused.value.code().name, read_error(refused.value).retry_after) == ("RESOURCE_EXHAUSTED", 1.0)
        storefront.free.set()
        assert await failure_of(first) == ("INTERNAL", "internal error")


async def test_an_old_connection_takes_no_more_calls_and_completes_those_in_flight() -> None:
    """The edge builds its server as the others of the mesh, whose connections get GOAWAY after a minute."""
    storefront: Any = Blocked()
    server, _ = build_rpc_server(
        storefront,
        SpanCapture("edge").telemetry,
        max_pending=10,
        public=False,
        options=[("grpc.max_connection_age_ms", 100)],
    )
    async with start_server(server) as address, grpc.aio.insecure_channel(address) as channel:
        first = stub(channel).GetProduct(PRODUCT)
        await storefront.reached.wait()
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        storefront.reached.clear()
        second = stub(channel).GetProduct(PRODUCT)
        await storefront.reached.wait()
        storefront.free.set()
        assert [(await call).product.sku for call in (first, second)] == ["TEA-0001"] * 2


@pytest.mark.parametrize(("method", "code"), [("GetProduct", "INTERNAL"), ("Nothing", "UNIMPLEMENTED")])
async def test_a_broken_message_and_an_unknown_method_have_their_codes(
    channel: grpc.aio.Channel, method: str, code: str
) -> None:
    call: Any = channel.unary_unary(f"/{STOREFRONT.name}/{method}")
    assert (await failure_of(call(b"\xff\xff")))[0] == code


async def test_a_call_whose_deadline_passes_is_cancelled_with_its_calls(tmp_path: Path) -> None:
    slow = Slow()
    async with mesh(tmp_path, inventory_servicer=slow.servicer(), grpc=True) as shop, channel_to(shop) as channel:
        call = stub(channel).GetProduct(PRODUCT, timeout=1, metadata=CALLER)
        assert (await failure_of(call))[0] == "DEADLINE_EXCEEDED"
        await slow.cancelled.wait()
        spans = await shop.spans(TRACE)
    (root,) = [span for span in spans if span.parent and span.parent.span_id == int(PARENT, 16)]
    assert (root.attributes or {})["rpc.response.status_code"] == "DEADLINE_EXCEEDED"


async def test_a_client_that_cancels_cancels_the_calls_of_the_edge(tmp_path: Path) -> None:
    slow = Slow()
    async with mesh(tmp_path, inventory_servicer=slow.servicer(), grpc=True) as shop, channel_to(shop) as channel:
        call = stub(channel).GetProduct(PRODUCT, metadata=CALLER)
        await slow.reached.wait()
        call.cancel()
        await slow.cancelled.wait()
        spans = await shop.spans(TRACE)
    (root,) = [span for span in spans if span.parent and span.parent.span_id == int(PARENT, 16)]
    assert (root.attributes or {})["rpc.response.status_code"] == "CANCELLED"


async def test_an_order_of_a_client_that_cancels_is_completed_and_a_repeat_returns_it(tmp_path: Path) -> None:
    slow, key = Slow(), (("idempotency-key", "k"),)
    order = pb.PlaceOrderRequest(lines=[pb.NewOrderLine(sku="TEA-0001", quantity=2)])
    async with mesh(tmp_path, inventory_servicer=slow.servicer(), grpc=True) as shop, channel_to(shop) as channel:
        call = stub(channel).PlaceOrder(order, metadata=(*CALLER, *key))
        await slow.reached.wait()
        call.cancel()
        while not shop.edge.spans(f"{STOREFRONT.name}/PlaceOrder"):
            await asyncio.sleep(0.001)
        slow.free.set()
        await shop.spans()
        assert (await shop.stock("TEA-0001"))["reserved"] == 2
        placed = (await stub(channel).PlaceOrder(order, metadata=key)).order
        assert (placed.state, (await shop.stock("TEA-0001"))["reserved"]) == (storefront_pb2.Order.STATE_RESERVED, 2)
    (root,) = [span for span in await shop.spans(TRACE) if span.name == f"{STOREFRONT.name}/PlaceOrder"]
    assert root.attributes is not None
    assert (root.attributes["rpc.response.status_code"], root.attributes["order.id"]) == ("CANCELLED", placed.order_id)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_request_above_the_limit_is_refused_however_small_its_compressed_form(
    channel: grpc.aio.Channel, compression: grpc.Compression
) -> None:
    request = pb.GetProductRequest(sku="S" * MAX_REQUEST_BYTES)
    code, details = await failure_of(stub(channel).GetProduct(request, compression=compression))
    assert (code, "larger than max" in details) == ("RESOURCE_EXHAUSTED", True)
    code, _ = await failure_of(
        stub(channel).GetProduct(pb.GetProductRequest(sku="S" * 120_000), compression=compression)
    )
    assert code == "INVALID_ARGUMENT"


async def test_the_server_is_healthy_and_describes_itself(channel: grpc.aio.Channel, shop: Mesh) -> None:
    await until_health(channel, "SERVING")
    assert [await health_of(channel, name) for name in ("", STOREFRONT.name)] == ["SERVING"] * 2
    methods = await asyncio.to_thread(described, shop.grpc_address)
    assert methods == [method.name for method in pb.DESCRIPTOR.services_by_name["StorefrontService"].methods]


def described(address: str) -> list[str]:
    """The methods of the storefront, by reflection."""
    with grpc.insecure_channel(address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        return [method.name for method in pool.FindServiceByName(STOREFRONT.name).methods]


async def test_buf_calls_it_without_protos(shop: Mesh) -> None:
    """As in the README."""
    url = f"http://{shop.grpc_address}/{STOREFRONT.name}/GetProduct"
    request = '{"sku": "TEA-0001", "currency": "JPY", "quantity": 12}'
    command = (str(PROGRAMS / "buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", request, url)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert json.loads(printed)["product"]["price"]["unitPrice"]["currencyCode"] == "JPY"


async def test_a_public_edge_begins_traces_of_its_own_with_a_link_to_the_caller(tmp_path: Path) -> None:
    async with mesh(tmp_path, public=True, grpc=True) as shop, channel_to(shop) as channel:
        await stub(channel).GetProduct(PRODUCT, metadata=(*CALLER, ("baggage", "a=b"), STRANGERS))
        spans = await shop.spans()
    (root,) = [span for span in spans if span.parent is None]
    assert [f"{link.context.trace_id:032x}" for link in root.links] == [TRACE]
    assert {trace_id_of(span) for span in spans} == {trace_id_of(root)} != {TRACE}
    assert len(spans) == 7


@pytest.mark.parametrize("sku", ["TEA-0001", "NO-1"])
async def test_a_response_and_an_error_name_the_trace(channel: grpc.aio.Channel, shop: Mesh, sku: str) -> None:
    call = stub(channel).GetProduct(pb.GetProductRequest(sku=sku))
    await call.code()
    found = dict(await call.trailing_metadata())
    (root,) = [span for span in await shop.spans(found["x-trace-id"]) if span.parent is None]
    assert root.context is not None
    assert re.fullmatch(f"00-{trace_id_of(root)}-{root.context.span_id:016x}-0[13]", found["traceresponse"])


async def test_the_metrics_count_the_calls(channel: grpc.aio.Channel, shop: Mesh) -> None:
    await stub(channel).GetProduct(PRODUCT)
    metrics = (await shop.get("/metrics")).text
    assert re.search(f'rpc_server_call_duration_seconds_count{{.*rpc_method="{STOREFRONT.name}/GetProduct"', metrics)


async def test_while_the_edge_drains_both_protocols_say_so_and_serve_until_its_end(tmp_path: Path) -> None:
    async with mesh(tmp_path, drain_seconds=LONG, grpc=True) as shop, channel_to(shop) as channel:
        await until_health(channel, "SERVING")
        assert (await shop.get("/readyz")).status == 200
        shop.stop.request()
        await until_health(channel, "NOT_SERVING")
        assert (await shop.get("/readyz")).status == 503
        assert await health_of(channel, "liveness") == "SERVING"
        assert (await stub(channel).GetProduct(PRODUCT)).product.sku == "TEA-0001"
        assert (await shop.get("/v1/products/TEA-0001")).status == 200


async def test_calls_in_flight_of_both_protocols_are_completed(tmp_path: Path) -> None:
    slow = Slow()
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=LONG, grpc=True) as shop,
        channel_to(shop) as channel,
        wire(shop) as connection,
    ):
        call = stub(channel).GetProduct(PRODUCT, timeout=15)
        await connection.send(READ)
        while not {"GET", f"{STOREFRONT.name}/GetProduct"} <= {span.name for span in shop.open_spans.spans}:
            await asyncio.sleep(0.001)
        shop.stop.request()
        while await listens(shop):
            await asyncio.sleep(0.001)
        slow.free.set()
        assert (await call).product.sku == "TEA-0001"
        assert (await connection.answer()).status == 200
        await shop.server_task


async def listens(shop: Mesh) -> bool:
    """Whether the edge accepts connections for gRPC."""
    host, _, port = shop.grpc_address.partition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True
