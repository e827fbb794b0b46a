"""JSON through Envoy: methods, paths, messages and statuses of the storefront."""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from tests.edge.protocols.client import Trace
from tests.edge.test_storefront_proto import METHODS, REST, rule
from tests.gateways.envoy import Envoy, envoy, failing_edge
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from tests.gateways.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDER = {"currency": "EUR", "lines": [{"sku": "TEA-0001", "quantity": 2}]}
STATUSES = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", (ROOT / "docs/http2-and-gateways.md").read_text(), re.MULTILINE)
"""The table of the document: codes of gRPC and Envoy's statuses."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(running_shop: Shop) -> AsyncIterator[Envoy]:
    """Envoy in front of both edges."""
    places, folder = running_shop.places, running_shop.folder / "transcoding"
    rest, rpc = [place.rest for place in places], [place.rpc for place in places]
    async with envoy(folder, running_shop.authority, rest, rpc, 2) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(running: Envoy) -> AsyncIterator[httpx.AsyncClient]:
    async with running.front.client() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(running: Envoy) -> AsyncIterator[Any]:
    async with running.front.channel() as channel:
        yield pb_grpc.StorefrontServiceStub(channel)


READS = {
    "/v1/products/TEA-0001": ("GetProduct", pb.GetProductRequest(sku="TEA-0001")),
    "/v1/products/TEA-0001?currency=JPY&quantity=12&strict=true": (
        "GetProduct",
        pb.GetProductRequest(sku="TEA-0001", currency="JPY", quantity=12, strict=True),
    ),
    "/v1/products/GFT-0010": ("GetProduct", pb.GetProductRequest(sku="GFT-0010")),
    "/v1/products?sku=TEA-0002&sku=TEA-0001": ("ListProducts", pb.ListProductsRequest(skus=["TEA-0002", "TEA-0001"])),
    "/v1/products?page_size=100": ("ListProducts", pb.ListProductsRequest(page_size=100)),
}


@pytest.mark.parametrize("path", READS)
async def test_a_read_in_json_is_the_answer_of_grpc(client: httpx.AsyncClient, stub: Any, path: str) -> None:
    method, request = READS[path]
    answer = await client.get(path)
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    found = ParseDict(answer.json(), getattr(pb, f"{method}Response")())
    assert found == await getattr(stub, method)(request)


async def test_an_order_in_json_is_that_of_grpc(client: httpx.AsyncClient, stub: Any) -> None:
    key = secrets.token_hex(16)
    placed = await client.post("/v1/orders", json=ORDER, headers={"Idempotency-Key": key})
    order = ParseDict(placed.json(), pb.PlaceOrderResponse())
    again = pb.PlaceOrderRequest(currency="EUR", lines=[pb.NewOrderLine(sku="TEA-0001", quantity=2)])
    assert order == await stub.PlaceOrder(again, metadata=[("idempotency-key", key)])
    order_id = order.order.order_id
    read = ParseDict((await client.get(f"/v1/orders/{order_id}")).json(), pb.GetOrderResponse())
    assert read == await stub.GetOrder(pb.GetOrderRequest(order_id=order_id))
    committed = ParseDict((await client.post(f"/v1/orders/{order_id}/commit")).json(), pb.CommitOrderResponse())
    assert committed == await stub.CommitOrder(pb.CommitOrderRequest(order_id=order_id))


async def test_an_order_is_released_in_json(client: httpx.AsyncClient, stub: Any) -> None:
    order_id = (await client.post("/v1/orders", json=ORDER)).json()["order"]["order_id"]
    released = ParseDict((await client.delete(f"/v1/orders/{order_id}")).json(), pb.ReleaseOrderResponse())
    assert released == await stub.ReleaseOrder(pb.ReleaseOrderRequest(order_id=order_id))


@pytest.mark.parametrize(("path", "verb"), [(path, verb) for path, found in REST.items() for verb in found])
async def test_every_operation_of_rest_is_the_method_of_its_annotation(
    shop: Shop, client: httpx.AsyncClient, path: str, verb: str
) -> None:
    (method,) = [method.name for method in METHODS if rule(method) == (verb, path)]
    trace, url = Trace(), re.sub("{.*}", "NO-1", path)
    body = ORDER if verb == "post" else None
    await client.request(verb, url, headers={"traceparent": trace.begin()}, json=body)
    spans = await shop.mesh.spans(trace.trace_id)
    assert f"aiomesh.storefront.v1.StorefrontService/{method}" in {span.name for span in spans}


REFUSED = {
    "an unknown path": ("GET", "/v1/nothing", b"", 404),
    "an unknown method": ("PUT", "/v1/products", b"", 404),
    "an unknown parameter": ("GET", "/v1/products?nope=1", b"", 400),
    "a parameter of another type": ("GET", "/v1/products/TEA-0001?quantity=x", b"", 400),
    "a body that is not JSON": ("POST", "/v1/orders", b"{nope", 400),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_cannot_be_transcoded_is_a_problem_of_envoy(client: httpx.AsyncClient, kind: str) -> None:
    method, path, body, status = REFUSED[kind]
    answer = await client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert answer.json()["detail"]


@pytest.mark.parametrize(("path", "details"), [("NO-1", 1), ("TEA-0001?quantity=0", 2), ("A%2FB", 1)])
async def test_an_error_in_json_is_the_status_of_grpc_with_its_details(
    client: httpx.AsyncClient, stub: Any, path: str, details: int
) -> None:
    answer = await client.get(f"/v1/products/{path}")
    found = ParseDict(answer.json(), Status())
    sku, _, quantity = path.replace("%2F", "/").partition("?quantity=")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetProduct(pb.GetProductRequest(sku=sku, quantity=int(quantity) if quantity else None))
    trailing = dict(raised.value.trailing_metadata() or ())
    assert found == Status.FromString(trailing["grpc-status-details-bin"])
    assert len(found.details) == details
    assert found.details[0].Is(error_details_pb2.ErrorInfo.DESCRIPTOR)


async def test_an_answer_names_its_trace(client: httpx.AsyncClient) -> None:
    for path in ("/v1/products/TEA-0001", "/v1/products/NO-1"):
        trace = Trace()
        answer = await client.get(path, headers={"traceparent": trace.begin()})
        assert answer.headers["X-Trace-Id"] == trace.trace_id


async def test_a_large_answer_in_json_is_compressed(client: httpx.AsyncClient) -> None:
    plain, small = [
        await client.get("/v1/products?page_size=100", headers={"Accept-Encoding": coding})
        for coding in ("identity", "gzip")
    ]
    assert small.headers["Content-Encoding"] == "gzip"
    assert small.json() == plain.json()
    assert small.num_bytes_downloaded < plain.num_bytes_downloaded / 4


async def test_the_status_of_a_code_is_that_of_the_document(running_shop: Shop) -> None:
    assert [code for code, _ in STATUSES] == [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    folder = running_shop.folder / "statuses"
    async with (
        failing_edge() as (_, address),
        envoy(folder, running_shop.authority, [running_shop.places[0].rest], [address], 1) as running,
        running.front.client() as client,
    ):
        for code, status in STATUSES:
            answer = await client.get(f"/v1/products/{code}")
            assert (code, answer.status_code) == (code, int(status))
            assert answer.json() == {"code": grpc.StatusCode[code].value[0], "message": "because", "details": []}


@pytest.mark.xfail(reason="it ignores `response_body`: https://github.com/envoyproxy/envoy/issues/11136", strict=True)
async def test_the_response_body_of_an_annotation_is_the_body(client: httpx.AsyncClient) -> None:
    assert json.loads((await client.get("/v1/products/TEA-0001")).text)["sku"] == "TEA-0001"
