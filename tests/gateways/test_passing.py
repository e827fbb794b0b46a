"""What each gateway tells an edge of its client, what it believes, and how it passes on events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from tests.edge.protocols.client import Trace
from tests.gateways.front import on_gateways
from tests.gateways.shop import READ, new_place
from tests.gateways.test_answers import PRODUCT, stub
from tests.gateways.upstream import upstream

if TYPE_CHECKING:
    from tests.gateways.front import Front
    from tests.gateways.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT = "127.0.0.2"
FORGED = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Prefix": "/evil",
}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def from_client(front: Front) -> httpx.AsyncClient:
    """A client with another address than the gateway."""
    transport = httpx.AsyncHTTPTransport(verify=front.context("h2"), http2=True, local_address=CLIENT)
    return httpx.AsyncClient(base_url=front.url, transport=transport, trust_env=False)


@on_gateways()
async def test_the_edge_gets_the_host_and_the_client_and_nothing_forged(shop: Shop, name: str) -> None:
    async with upstream() as (edge, place), shop.front(name, place) as front, from_client(front) as client:
        answer = await client.get(READ, headers={"Host": "shop.example.com", **FORGED})
    assert (answer.status_code, edge.fields.getall("Host")) == (200, ["shop.example.com"])
    assert edge.fields["X-Forwarded-For"].split(", ")[-1] == CLIENT
    assert edge.fields.getall("X-Forwarded-Host") == ["shop.example.com"]
    assert edge.fields.getall("X-Forwarded-Proto") == ["https"]
    assert "X-Forwarded-Prefix" not in edge.fields


@on_gateways()
@pytest.mark.parametrize(("trusted", "address"), [("127.0.0.1", CLIENT), ("", "127.0.0.1")])
async def test_the_edge_believes_it_by_its_setting_alone(shop: Shop, name: str, trusted: str, address: str) -> None:
    place, trace = new_place(), Trace()
    async with (
        shop.start(place, trusted_proxies=trusted),
        shop.front(name, place) as front,
        from_client(front) as client,
    ):
        await client.get(READ, headers={"traceparent": trace.begin(), "Host": "shop.example.com", **FORGED})
    attributes: Any = (await shop.ended(trace)).attributes
    assert attributes["client.address"] == address
    assert attributes["url.scheme"] == ("https" if trusted else "http")
    assert attributes["server.address"] == "shop.example.com"


@on_gateways()
async def test_a_time_budget_of_http_reaches_the_backends(shop: Shop, gateway: Front) -> None:
    async with gateway.client() as client:
        await client.get(READ, headers={"X-Request-Timeout-Ms": "12000"})
    assert shop.backends.remaining["BatchGetStock" if "GetStock" not in shop.backends.remaining else "GetStock"] > 2


@on_gateways()
async def test_a_deadline_of_grpc_reaches_the_backends(shop: Shop, gateway: Front) -> None:
    async with gateway.channel() as channel:
        await stub(channel).GetProduct(PRODUCT, timeout=12)
    assert 2 < shop.backends.remaining["GetStock"] < 12


@on_gateways()
async def test_a_deadline_of_grpc_that_passes_cancels_the_calls(shop: Shop, gateway: Front) -> None:
    shop.backends.blocked_methods = frozenset({"GetStock", "GetPrice"})
    async with gateway.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(channel).GetProduct(PRODUCT, timeout=0.5)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await shop.until_cancelled(2)


@on_gateways()
async def test_each_event_of_a_stream_arrives_before_the_next_is_sent(shop: Shop, name: str) -> None:
    arrived = asyncio.Event()

    async def stream(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + b"9\r\ndata: 1\n\n\r\n")
        await arrived.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with upstream(stream) as (_, place), shop.front(name, place) as front, front.client() as client:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
        async with client.stream("GET", "/v1/events", headers=headers) as response:
            events = response.aiter_text()
            assert await anext(events) == "data: 1\n\n"
            arrived.set()
            assert await anext(events) == "data: 2\n\n"
