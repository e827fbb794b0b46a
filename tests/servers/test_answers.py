"""What each server answers, in which protocols."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from tests.edge.protocols.client import Trace
from tests.edge.protocols.web import frame, parsed
from tests.edge.trees import tree
from tests.servers.shop import READ, on_http2, on_servers

if TYPE_CHECKING:
    from tests.servers.shop import Edge, Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDER = json.dumps({"lines": [{"sku": "TEA-0001", "quantity": 2}]}).encode()
GET_PRODUCT = "/aiomesh.storefront.v1.StorefrontService/GetProduct"
ALPN = {"uvicorn": "http/1.1", "hypercorn": "h2", "granian": "h2"}
NO_TRAILERS = {
    "uvicorn": "trailers are there only in the experiment with HTTP/2: https://uvicorn.dev/concepts/http2/",
    "granian": "it sends no trailers: https://github.com/emmett-framework/granian/issues/93",
}
MANY = 1_001
"""The requests after which a server may end a connection, and one."""


@on_servers()
async def test_a_request_of_http_1_1_is_answered(shop: Shop, edge: Edge) -> None:
    async with shop.mesh.http.get(f"http://{edge.target}{READ}") as response:
        assert (response.version, response.status) == (aiohttp.HttpVersion11, 200)
        assert (await response.json())["sku"] == "TEA-0001"


@on_http2()
async def test_a_request_of_http_2_is_answered_without_tls(edge: Edge) -> None:
    async with edge.streams() as client:
        product = await client.get(READ)
        order = await client.response(await client.post("/v1/orders", ORDER))
    assert (product.status, product.json["sku"], order.status) == (200, "TEA-0001", 201)


@on_servers()
async def test_under_tls_uvicorn_offers_http_1_1_and_the_others_http_2(shop: Shop, server: str) -> None:
    async with shop.start(server, **shop.tls) as edge:
        _, writer = await asyncio.open_connection(*edge.address, ssl=shop.context("h2", "http/1.1"))
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == ALPN[server]
        writer.close()
        async with shop.mesh.http.get(f"https://{edge.target}{READ}", ssl=shop.context("http/1.1")) as response:
            assert (response.version, response.status) == (aiohttp.HttpVersion11, 200)


@on_http2()
async def test_a_request_of_http_2_is_answered_under_tls(shop: Shop, server: str) -> None:
    async with shop.start(server, **shop.tls) as edge, edge.streams(shop.context("h2")) as client:
        assert (await client.get(READ)).json["sku"] == "TEA-0001"


@on_http2()
async def test_a_connection_has_more_than_a_thousand_requests(edge: Edge) -> None:
    async with edge.streams() as client:
        for _ in range(MANY):
            assert (await client.get("/livez")).status == 200


@on_servers()
async def test_connect_and_grpc_web_are_on_the_port(shop: Shop, edge: Edge) -> None:
    url, request = f"http://{edge.target}{GET_PRODUCT}", pb.GetProductRequest(sku="TEA-0001")
    async with shop.mesh.http.post(url, json={"sku": "TEA-0001"}) as response:
        assert (await response.json())["product"]["sku"] == "TEA-0001"
    web = {"Content-Type": "application/grpc-web+proto"}
    async with shop.mesh.http.post(url, data=frame(request.SerializeToString()), headers=web) as response:
        (message,), trailers = parsed(await response.read())
    assert (pb.GetProductResponse.FromString(message).product.sku, trailers["grpc-status"]) == ("TEA-0001", "0")


@on_http2()
async def test_connect_and_grpc_web_are_there_over_http_2(edge: Edge) -> None:
    request, web = pb.GetProductRequest(sku="TEA-0001"), {"Content-Type": "application/grpc-web+proto"}
    async with edge.streams() as client:
        stream = await client.post(GET_PRODUCT, b'{"sku": "TEA-0001"}')
        assert (await client.response(stream)).json["product"]["sku"] == "TEA-0001"
        stream = await client.post(GET_PRODUCT, frame(request.SerializeToString()), web)
        (message,), _ = parsed((await client.response(stream)).body)
    assert pb.GetProductResponse.FromString(message).product.sku == "TEA-0001"


@on_servers(**NO_TRAILERS)
async def test_grpc_is_on_the_port(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(edge.target) as channel:
        await get_product(channel)


@on_servers(**NO_TRAILERS)
async def test_grpc_is_on_the_port_under_tls(shop: Shop, server: str) -> None:
    credentials = grpc.ssl_channel_credentials(shop.authority.cert_pem.bytes())
    async with shop.start(server, **shop.tls) as edge, grpc.aio.secure_channel(edge.target, credentials) as channel:
        await get_product(channel)


@on_servers()
async def test_a_request_is_one_trace_with_its_calls(shop: Shop, edge: Edge) -> None:
    trace = Trace()
    async with shop.mesh.http.get(f"http://{edge.target}{READ}", headers={"traceparent": trace.begin()}) as response:
        assert response.headers["X-Trace-Id"] == trace.trace_id
    assert_complete(await shop.mesh.spans(trace.trace_id), trace, "1.1")


@on_http2()
async def test_a_request_of_http_2_is_one_trace_with_its_calls(shop: Shop, edge: Edge) -> None:
    trace = Trace()
    async with edge.streams() as client:
        assert (await client.get(READ, {"traceparent": trace.begin()})).fields["x-trace-id"] == trace.trace_id
    assert_complete(await shop.mesh.spans(trace.trace_id), trace, "2")


def assert_complete(spans: list[Any], trace: Trace, version: str) -> None:
    """Asserts that these are the spans of one product, whose request was of a version of HTTP."""
    ((service, name, calls),) = tree(spans, trace.parent)
    assert (service, name) == ("api_edge", "GET /v1/products/{sku}")
    assert len({child for _, _, ((child, _, _),) in calls}) == 2
    (root,) = [span for span in spans if span.parent.span_id == trace.parent]
    attributes = dict(root.attributes)
    assert (attributes["network.protocol.version"], attributes["client.address"]) == (version, "127.0.0.1")


async def get_product(channel: grpc.aio.Channel) -> None:
    stub: Any = pb_grpc.StorefrontServiceStub(channel)
    assert (await stub.GetProduct(pb.GetProductRequest(sku="TEA-0001"))).product.sku == "TEA-0001"
