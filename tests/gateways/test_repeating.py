"""What each gateway sends to another edge when one fails: a restart loses nothing, and no order is placed twice."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateways.front import on_gateways
from tests.gateways.killed import edge_processes
from tests.gateways.shop import GET_PRODUCT, READ, new_place, until
from tests.gateways.test_answers import ORDER, PRODUCT, stub
from tests.gateways.upstream import answer_nothing, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from tests.gateways.front import Front
    from tests.gateways.shop import Place, Shop

    Worker = Callable[[Front, asyncio.Event], Coroutine[None, None, list[Any]]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYED = {"Idempotency-Key": "k" * 32}
WORKERS = 4
DRAIN = 1.5
"""Seconds in which a gateway with health checks notices that an edge drains."""

NO_STATUS = (
    "it repeats by HTTP's status alone, and has no health checks, so calls reach an edge that has drained: "
    "https://nginx.org/en/docs/http/ngx_http_grpc_module.html#grpc_next_upstream"
)
SAME_EDGE = (
    "until the next health check its retries may choose the dead edge again: "
    "https://doc.traefik.io/traefik/reference/routing-configuration/http/middlewares/retry/"
)
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""What gRPC's own client does with a call that an edge did not begin."""


@on_gateways()
@pytest.mark.parametrize(
    ("method", "path", "headers", "again"),
    [
        ("GET", READ, {}, True),
        ("DELETE", "/v1/orders/1", {}, True),
        ("POST", "/v1/orders", KEYED, True),
        ("POST", "/v1/orders/1/commit", {}, True),
        ("POST", GET_PRODUCT, {}, True),
        ("POST", "/v1/orders", {}, False),
        ("POST", GET_PRODUCT.replace("GetProduct", "PlaceOrder"), {}, False),
    ],
)
async def test_a_request_is_sent_again_only_if_that_is_safe(
    shop: Shop, name: str, method: str, path: str, headers: dict[str, str], *, again: bool
) -> None:
    async with (
        upstream(answer_nothing) as (one, first),
        upstream(answer_nothing) as (two, second),
        shop.front(name, first, second) as front,
        front.client() as client,
    ):
        answer = await client.request(method, path, headers=headers, json=ORDER if method == "POST" else None)
    assert answer.status_code in {502, 503}
    sent = [len(one.requests), len(two.requests)]
    assert min(sent) > 0 if again else sum(sent) == 1


@on_gateways()
async def test_a_rolling_restart_of_two_edges_loses_no_read_and_no_keyed_order(shop: Shop, name: str) -> None:
    assert not {*await during_a_rolling_restart(shop, name, reads, orders)} - {200, 201}


@on_gateways()
async def test_a_rolling_restart_loses_no_read_of_a_grpc_client_that_repeats(shop: Shop, name: str) -> None:
    repeat = partial(calls, options=[("grpc.service_config", RETRIES)])
    assert {*await during_a_rolling_restart(shop, name, repeat)} == {"OK"}


@on_gateways(nginx=NO_STATUS)
async def test_a_rolling_restart_loses_no_read_of_any_grpc_client(shop: Shop, name: str) -> None:
    assert {*await during_a_rolling_restart(shop, name, calls)} == {"OK"}


async def during_a_rolling_restart(shop: Shop, name: str, *workers: Worker) -> list[Any]:
    """What workers get while both edges are restarted one after the other."""
    places, done = (new_place(), new_place()), asyncio.Event()
    async with AsyncExitStack() as fleet:
        edges = [await fleet.enter_async_context(shop.start(place, drain_seconds=DRAIN)) for place in places]
        async with shop.front(name, *places) as front:
            work = [asyncio.create_task(worker(front, done)) for worker in workers * WORKERS]
            for index in (0, 1):
                edges[index].stop.request()
                await edges[index].task
                edges[index] = await fleet.enter_async_context(shop.start(places[index], drain_seconds=DRAIN))
                await until_checked(front, places[index])
            done.set()
            results = await asyncio.gather(*work)
    assert all(results)
    return [answer for answers in results for answer in answers]


async def until_checked(front: Front, place: Place) -> None:
    """Waits until a gateway with health checks has found an edge again, before which the other must not stop."""
    if front.gateway.name == "traefik":
        await until(lambda: {place.rest_port, place.rpc_port} <= front.connected_ports())


@on_gateways(traefik=SAME_EDGE)
@pytest.mark.timeout(90)
async def test_killing_one_edge_after_the_other_loses_no_read_and_no_keyed_order(shop: Shop, name: str) -> None:
    places, done = (new_place(), new_place()), asyncio.Event()
    async with edge_processes(shop.mesh, *places) as edges, shop.front(name, *places) as front:
        work = [asyncio.create_task(worker(front, done)) for worker in (reads, orders) * WORKERS]
        for edge in edges * 2:
            await edge.kill()
            await edge.start()
        done.set()
        results = await asyncio.gather(*work)
    assert {answer for answers in results for answer in answers} == {200, 201}


async def reads(front: Front, done: asyncio.Event) -> list[Any]:
    async with front.client() as client:
        return [(await client.get(READ)).status_code async for _ in until_set(done)]


async def orders(front: Front, done: asyncio.Event) -> list[Any]:
    """Orders with a key, each of which is found again."""
    found: list[Any] = []
    async with front.client() as client:
        async for _ in until_set(done):
            answer = await client.post("/v1/orders", json=ORDER, headers={"Idempotency-Key": secrets.token_hex(16)})
            found.append(answer.status_code)
            if answer.is_success:
                found.append((await client.delete(answer.headers["Location"])).status_code)
    return found


async def calls(front: Front, done: asyncio.Event, options: Sequence[tuple[str, Any]] = ()) -> list[Any]:
    async with front.channel(*options) as channel:
        return [(await stub(channel).GetProduct(PRODUCT, timeout=10).code()).name async for _ in until_set(done)]


async def until_set(done: asyncio.Event) -> AsyncIterator[None]:
    """Again and again until an event is set."""
    while not done.is_set():
        yield
