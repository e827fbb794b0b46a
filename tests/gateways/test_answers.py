"""What each gateway passes on: REST, gRPC, Connect and gRPC-Web over HTTP/2 with TLS, whole and traced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from tests.edge.protocols.client import Trace
from tests.edge.protocols.web import frame, parsed
from tests.edge.trees import tree
from tests.gateways.front import on_gateways
from tests.gateways.shop import GET_PRODUCT, READ
from tests.servers.http2 import http2

if TYPE_CHECKING:
    from tests.gateways.front import Front
    from tests.gateways.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRODUCT = pb.GetProductRequest(sku="TEA-0001")
ORDER = {"lines": [{"sku": "TEA-0001", "quantity": 1}]}
PAGE = "/v1/products?page_size=100"


@on_gateways()
@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")])
async def test_tls_offers_http_2_and_http_1_1(gateway: Front, offered: list[str], chosen: str) -> None:
    _, writer = await asyncio.open_connection(*gateway.address, ssl=gateway.context(*offered))
    found = writer.get_extra_info("ssl_object")
    assert (found.selected_alpn_protocol(), found.version()) == (chosen, "TLSv1.3")
    writer.close()


@on_gateways()
@pytest.mark.parametrize("http2", [True, False])
async def test_rest_is_answered(gateway: Front, *, http2: bool) -> None:
    async with gateway.client(http2=http2) as client:
        product = await client.get(READ)
        assert (product.http_version, product.status_code) == ("HTTP/2" if http2 else "HTTP/1.1", 200)
        assert product.json()["sku"] == "TEA-0001"
        order = await client.post("/v1/orders", json=ORDER)
        assert order.status_code == 201
        assert (await client.get(order.headers["Location"])).json() == order.json()
        assert (await client.delete(order.headers["Location"])).status_code == 200


@on_gateways()
async def test_grpc_is_answered_with_its_health_and_errors(gateway: Front) -> None:
    async with gateway.channel() as channel:
        assert (await stub(channel).GetProduct(PRODUCT)).product.sku == "TEA-0001"
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(channel).GetProduct(pb.GetProductRequest(sku="NO-1"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert "grpc-status-details-bin" in dict(raised.value.trailing_metadata() or ())


@on_gateways()
@pytest.mark.parametrize("http2", [True, False])
async def test_connect_and_grpc_web_are_answered(gateway: Front, *, http2: bool) -> None:
    async with gateway.client(http2=http2) as client:
        answer = await client.post(GET_PRODUCT, json={"sku": "TEA-0001"})
        assert answer.json()["product"]["sku"] == "TEA-0001"
        web = {"Content-Type": "application/grpc-web+proto"}
        answer = await client.post(GET_PRODUCT, content=frame(PRODUCT.SerializeToString()), headers=web)
    (message,), trailers = parsed(answer.content)
    assert (pb.GetProductResponse.FromString(message).product.sku, trailers["grpc-status"]) == ("TEA-0001", "0")


@on_gateways()
async def test_a_request_is_one_trace_with_its_calls(shop: Shop, gateway: Front) -> None:
    trace = Trace()
    async with gateway.client() as client:
        answer = await client.get(READ, headers={"traceparent": trace.begin()})
    assert answer.headers["X-Trace-Id"] == trace.trace_id
    ((service, name, calls),) = tree(await shop.mesh.spans(trace.trace_id), trace.parent)
    assert (service, name, len(calls)) == ("api_edge", "GET /v1/products/{sku}", 2)


@on_gateways()
async def test_a_call_of_grpc_is_one_trace_with_its_calls(shop: Shop, gateway: Front) -> None:
    trace = Trace()
    async with gateway.channel() as channel:
        await stub(channel).GetProduct(PRODUCT, metadata=[("traceparent", trace.begin())])
    ((service, name, calls),) = tree(await shop.mesh.spans(trace.trace_id), trace.parent)
    assert (service, name, len(calls)) == ("api_edge", GET_PRODUCT[1:], 2)


@on_gateways()
async def test_a_page_of_a_hundred_products_arrives_whole_and_compressed(gateway: Front) -> None:
    async with gateway.client() as client:
        plain = await client.get(PAGE, headers={"Accept-Encoding": "identity"})
        small = await client.get(PAGE, headers={"Accept-Encoding": "gzip"})
    assert (plain.headers.get("Content-Encoding"), small.headers["Content-Encoding"]) == (None, "gzip")
    assert len(plain.json()["products"]) > 50
    assert small.json() == plain.json()
    assert small.num_bytes_downloaded < plain.num_bytes_downloaded / 4


@on_gateways()
async def test_a_page_of_a_hundred_products_arrives_over_grpc(gateway: Front) -> None:
    async with gateway.channel() as channel:
        pages = [
            await stub(channel).ListProducts(pb.ListProductsRequest(page_size=100), compression=compression)
            for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip)
        ]
    assert len(pages[0].products) > 50
    assert pages[0] == pages[1]


@on_gateways()
@pytest.mark.parametrize(("size", "http2"), [(200_000, True), (2_000_000, False)])
async def test_a_body_that_is_too_large_is_a_problem(gateway: Front, size: int, *, http2: bool) -> None:
    async with gateway.client(http2=http2) as client:
        answer = await client.post("/v1/orders", json={"lines": ["x" * size]})
    assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")
    assert answer.json()["reason"] == "CONTENT_TOO_LARGE"


@on_gateways()
@pytest.mark.parametrize("size", [200_000, 300_000, 2_000_000])
async def test_a_message_that_is_too_large_is_resource_exhausted(gateway: Front, size: int) -> None:
    async with gateway.channel() as channel:
        call = stub(channel).GetProduct(pb.GetProductRequest(sku="x" * size), timeout=15)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["nginx"])
async def test_a_message_that_declares_a_length_that_is_too_large_is_resource_exhausted(gateway: Front) -> None:
    fields = {"Content-Type": "application/grpc", "TE": "trailers", "Content-Length": "300000"}
    message = (0).to_bytes(1) + (299_995).to_bytes(4) + b"x"
    async with http2(gateway.address, gateway.context("h2")) as client:
        answer = await client.response(await client.post(GET_PRODUCT, message, fields, ends=False))
    found = (answer.status, answer.fields["content-type"], answer.fields["grpc-status"])
    assert found == (200, "application/grpc", str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]))


@on_gateways()
async def test_the_metrics_are_not_for_clients(gateway: Front) -> None:
    async with gateway.client() as client:
        assert (await client.get("/metrics")).status_code == 404


def stub(channel: grpc.aio.Channel) -> Any:
    return pb_grpc.StorefrontServiceStub(channel)
