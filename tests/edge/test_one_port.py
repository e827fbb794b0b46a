"""All protocols on one port: the edge on Hypercorn, which speaks HTTP/2 and sends trailers, and gRPC's own client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from opentelemetry.trace import SpanKind

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from api_edge.rules import MAX_REQUEST_BYTES
from api_edge.settings import Settings
from meshkit.status import read_error
from tests.edge.mesh import Mesh, mesh, start_edge
from tests.edge.protocols.client import Trace
from tests.edge.test_draining import Slow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRODUCT = pb.GetProductRequest(sku="TEA-0001")


@asynccontextmanager
async def on_hypercorn(shop: Mesh) -> AsyncIterator[str]:
    """Another edge on the backends of a mesh, with `EDGE_SERVER=hypercorn`. Yields its address."""
    settings = Settings(
        server="hypercorn",
        inventory_target=shop.inventory_address,
        pricing_target=shop.pricing_address,
        drain_seconds=0,
    )
    async with start_edge(settings, shop.edge) as (url, _, _):
        yield url.removeprefix("http://")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(shop: Mesh) -> AsyncIterator[str]:
    async with on_hypercorn(shop) as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        yield pb_grpc.StorefrontServiceStub(channel)


async def status_of_root(shop: Mesh, trace: Trace) -> Any:
    spans = [span for span in await shop.spans(trace.trace_id) if span.kind is SpanKind.SERVER]
    (root,) = [span for span in spans if span.parent and span.parent.span_id == trace.parent]
    assert (root.attributes or {})["rpc.system.name"] == "grpc"
    return (root.attributes or {})["rpc.response.status_code"]


async def test_a_call_of_grpc_has_its_response_its_trailers_and_its_trace(stub: Any, shop: Mesh) -> None:
    trace = Trace()
    call = stub.GetProduct(PRODUCT, metadata=(("traceparent", trace.begin()),))
    assert (await call).product.sku == "TEA-0001"
    assert dict(await call.trailing_metadata())["x-trace-id"] == trace.trace_id
    assert await status_of_root(shop, trace) == "OK"


async def test_an_error_of_grpc_has_its_details(stub: Any, shop: Mesh) -> None:
    trace = Trace()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetProduct(pb.GetProductRequest(sku="NO-1"), metadata=(("traceparent", trace.begin()),))
    error = read_error(raised.value)
    assert (raised.value.code(), error.reason, error.fields) == (
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_SKU",
        {"sku": "NO-1"},
    )
    assert await status_of_root(shop, trace) == "NOT_FOUND"


async def test_an_oversized_message_of_grpc_is_refused(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetProduct(pb.GetProductRequest(sku="S" * MAX_REQUEST_BYTES), compression=grpc.Compression.Gzip)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_unknown_method_of_grpc_is_unimplemented(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/aiomesh.storefront.v1.StorefrontService/GetNothing")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
    assert (raised.value.code(), raised.value.details()) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "the service has no such method",
    )


async def test_rest_and_connect_are_on_the_same_port(address: str, shop: Mesh) -> None:
    async with shop.http.get(f"http://{address}/v1/products/TEA-0001") as response:
        assert (response.status, (await response.json())["sku"]) == (200, "TEA-0001")
    url = f"http://{address}/aiomesh.storefront.v1.StorefrontService/GetProduct"
    async with shop.http.post(url, json={"sku": "TEA-0001"}) as response:
        assert (response.status, (await response.json())["product"]["sku"]) == (200, "TEA-0001")


async def test_a_client_of_grpc_that_cancels_cancels_the_calls_of_the_edge(tmp_path: Path) -> None:
    slow, trace = Slow(), Trace()
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer()) as shop,
        on_hypercorn(shop) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = pb_grpc.StorefrontServiceStub(channel)
        call = stub.GetProduct(PRODUCT, metadata=(("traceparent", trace.begin()),), wait_for_ready=True)
        await slow.reached.wait()
        call.cancel()
        await slow.cancelled.wait()
        assert await status_of_root(shop, trace) == "CANCELLED"
