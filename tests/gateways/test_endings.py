"""What each gateway does when a client disconnects, when no edge answers, and when it is stopped itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.edge.mesh import get
from tests.edge.protocols.client import Trace
from tests.edge.protocols.web import frame
from tests.edge.test_disconnect import CANCELLED, outcome
from tests.gateways.front import on_gateways
from tests.gateways.shop import GET_PRODUCT, PATIENT, READ, new_place
from tests.gateways.test_answers import PRODUCT, stub
from tests.servers.http2 import http2

if TYPE_CHECKING:
    from tests.gateways.front import Front
    from tests.gateways.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = frozenset({"GetStock", "GetPrice"})
PLAIN_502 = (
    "its own 502 is plain text, and another page needs a service that runs: "
    "https://doc.traefik.io/traefik/reference/routing-configuration/http/middlewares/errorpages/"
)


@on_gateways()
async def test_a_client_of_http_1_1_that_disconnects_cancels_the_calls(shop: Shop, gateway: Front) -> None:
    trace, shop.backends.blocked_methods = Trace(), CALLS
    _, writer = await asyncio.open_connection(*gateway.address, ssl=gateway.context("http/1.1"))
    writer.write(get(READ, traceparent=trace.begin(), **PATIENT))
    await shop.backends.until_reached(2)
    writer.transport.abort()
    assert outcome(await shop.ended(trace)) == CANCELLED
    await shop.until_cancelled(2)


@on_gateways()
async def test_a_stream_that_is_reset_cancels_its_calls_and_no_others(shop: Shop, gateway: Front) -> None:
    trace, shop.backends.blocked_methods = Trace(), CALLS
    async with http2(gateway.address, gateway.context("h2")) as client:
        stream = await client.begin_get(READ, {"traceparent": trace.begin(), **PATIENT})
        await shop.backends.until_reached(2)
        other = await client.begin_get(READ, PATIENT)
        await client.reset(stream)
        assert outcome(await shop.ended(trace)) == CANCELLED
        shop.backends.free.set()
        assert (await client.response(other)).status == 200


@on_gateways()
async def test_a_call_of_grpc_that_is_cancelled_cancels_the_calls(shop: Shop, gateway: Front) -> None:
    shop.backends.blocked_methods = CALLS
    async with gateway.channel() as channel:
        call = asyncio.ensure_future(get_product(channel))
        await shop.backends.until_reached(2)
        call.cancel()
        await shop.until_cancelled(2)


@on_gateways()
async def test_without_an_edge_a_call_of_grpc_is_unavailable(shop: Shop, name: str) -> None:
    async with shop.front(name, new_place()) as front, front.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(channel).GetProduct(PRODUCT, timeout=15)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


@on_gateways()
async def test_without_an_edge_connect_and_grpc_web_are_unavailable(shop: Shop, name: str) -> None:
    """Both read these statuses of HTTP as UNAVAILABLE."""
    web = {"Content-Type": "application/grpc-web+proto"}
    async with shop.front(name, new_place()) as front, front.client() as client:
        connect = await client.post(GET_PRODUCT, json={"sku": "TEA-0001"})
        grpc_web = await client.post(GET_PRODUCT, content=frame(PRODUCT.SerializeToString()), headers=web)
    assert {connect.status_code, grpc_web.status_code} <= {502, 503}


@on_gateways(traefik=PLAIN_502)
async def test_without_an_edge_rest_is_a_problem_that_says_when_to_try_again(shop: Shop, name: str) -> None:
    async with shop.front(name, new_place()) as front, front.client() as client:
        answer = await client.get(READ)
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert (answer.headers["Retry-After"], answer.json()["reason"]) == ("1", "UNAVAILABLE")


@on_gateways()
async def test_an_edge_that_is_back_is_used_again(shop: Shop, name: str) -> None:
    place = new_place()
    async with shop.front(name, place) as front, front.client() as client:
        assert (await client.get(READ)).status_code in {502, 503}
        async with shop.start(place):
            while (await client.get(READ)).status_code != 200:
                await asyncio.sleep(0.01)


@on_gateways()
async def test_a_gateway_that_stops_completes_its_requests(shop: Shop, name: str) -> None:
    shop.backends.blocked_methods = CALLS
    async with (
        shop.front(name, *shop.places) as front,
        http2(front.address, front.context("h2")) as client,
        front.channel() as channel,
    ):
        rest = await client.begin_get(READ, PATIENT)
        await shop.backends.until_reached(2)
        call = asyncio.create_task(get_product(channel))
        await shop.backends.until_reached(4)
        front.stop()
        shop.backends.free.set()
        assert ((await client.response(rest)).status, (await call).product.sku) == (200, "TEA-0001")
        assert await asyncio.to_thread(front.process.wait) == 0


async def get_product(channel: grpc.aio.Channel) -> Any:
    return await stub(channel).GetProduct(PRODUCT, timeout=15)
