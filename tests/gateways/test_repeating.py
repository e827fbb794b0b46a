"""What each gateway sends to another edge when one fails: a restart loses nothing, and no order is placed twice."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.gateways.front import on_gateways
from tests.gateways.killed import edge_processes
from tests.gateways.shop import GET_PRODUCT, READ, new_place, until
from tests.gateways.test_answers import ORDER, PRODUCT, stub
from tests.gateways.upstream import answer_nothing, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    import httpx

    from tests.gateways.front import Front
    from tests.gateways.shop import Shop

    Worker = Callable[[Front, asyncio.Event, list[Any]], Coroutine[None, None, None]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYED = {"Idempotency-Key": "k" * 32}
WORKERS = 4
DRAIN = 4.0
"""Seconds in which a gateway with health checks notices that an edge drains."""

NO_STATUS = (
    "it repeats by HTTP's status alone, and has no health checks, so calls reach an edge that has drained: "
    "https://nginx.org/en/docs/http/ngx_http_grpc_module.html#grpc_next_upstream"
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
async def test_an_order_without_a_key_goes_to_the_other_edge_when_one_refuses_the_connection(
    shop: Shop, name: str
) -> None:
    """Its port is closed after health checks have found it, so only the connection says that it is gone."""
    async with AsyncExitStack() as stack:
        one, first = await stack.enter_async_context(upstream())
        closing = stack.pop_all()
        two, second = await stack.enter_async_context(upstream())
        front = await stack.enter_async_context(shop.front(name, first, second))
        client = await stack.enter_async_context(front.client())
        await closing.aclose()
        answers = [await client.post("/v1/orders", json=ORDER) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert (len(one.requests), len(two.requests)) == (0, 4)


@pytest.fixture(scope="module")
def _restarts() -> dict[str, dict[Worker, set[Any]]]:
    return {}


@pytest_asyncio.fixture(loop_scope="module")
async def answers(shop: Shop, name: str, _restarts: dict[str, dict[Worker, set[Any]]]) -> dict[Worker, set[Any]]:
    """What each worker got during a rolling restart of two edges, of which each gateway has one for all tests."""
    if name not in _restarts:
        _restarts[name] = await during_a_rolling_restart(shop, name, reads, orders, calls, calls_with_retries)
    return _restarts[name]


@pytest.mark.timeout(60)
@on_gateways()
async def test_a_rolling_restart_of_two_edges_loses_no_read_and_no_keyed_order(
    answers: dict[Worker, set[Any]],
) -> None:
    assert not (answers[reads] | answers[orders]) - {200, 201}


@pytest.mark.timeout(60)
@on_gateways()
async def test_a_rolling_restart_loses_no_read_of_a_grpc_client_that_repeats(answers: dict[Worker, set[Any]]) -> None:
    assert answers[calls_with_retries] == {"OK"}


@pytest.mark.timeout(60)
@on_gateways(nginx=NO_STATUS)
async def test_a_rolling_restart_loses_no_read_of_any_grpc_client(answers: dict[Worker, set[Any]]) -> None:
    assert answers[calls] == {"OK"}


async def during_a_rolling_restart(shop: Shop, name: str, *workers: Worker) -> dict[Worker, set[Any]]:
    """What each worker gets while both edges are restarted one after the other."""
    places = (new_place(), new_place())
    async with AsyncExitStack() as fleet:
        edges = [await fleet.enter_async_context(shop.start(place, drain_seconds=DRAIN)) for place in places]
        front = await fleet.enter_async_context(shop.front(name, *places))
        async with working(front, *workers) as found:
            for index, place in enumerate(places):
                edges[index].stop.request()
                await edges[index].task
                calls_before = front.calls_of(place.rest, place.rpc)
                edges[index] = await fleet.enter_async_context(shop.start(place, drain_seconds=DRAIN))
                await until(lambda: front.calls_of(place.rest, place.rpc) > calls_before)  # noqa: B023 - awaited here
    return {worker: set(chain(*found[index :: len(workers)])) for index, worker in enumerate(workers)}


@pytest.mark.timeout(90)
async def test_killing_one_edge_after_the_other_loses_no_read_and_no_keyed_order_behind_nginx(shop: Shop) -> None:
    places = (new_place(), new_place())
    async with (
        edge_processes(shop.mesh, *places) as edges,
        shop.front("nginx", *places) as front,
        working(front, reads, orders) as found,
    ):
        for edge in edges * 2:
            await edge.kill()
            await edge.start()
            await until_all_go_on(found)  # no request may meet a second edge that is killed
    assert {answer for answers in found for answer in answers} == {200, 201}


@asynccontextmanager
async def working(front: Front, *workers: Worker) -> AsyncIterator[list[list[Any]]]:
    """Several of each worker, until the end of the block. Yields what each gets."""
    done, several = asyncio.Event(), workers * WORKERS
    found: list[list[Any]] = [[] for _ in several]
    work = [asyncio.create_task(worker(front, done, own)) for worker, own in zip(several, found, strict=True)]
    try:
        yield found
    finally:
        done.set()
        await asyncio.gather(*work)
    assert all(found)


async def until_all_go_on(found: list[list[Any]]) -> None:
    """Waits until the request that each worker is making has ended, and another one."""
    before = [len(answers) for answers in found]
    await until(lambda: all(len(answers) > number + 1 for answers, number in zip(found, before, strict=True)))


async def reads(front: Front, done: asyncio.Event, found: list[Any]) -> None:
    async with front.client() as client:
        async for _ in until_set(done):
            found.append(outcome(await client.get(READ)))  # noqa: PERF401 - others read it meanwhile


async def orders(front: Front, done: asyncio.Event, found: list[Any]) -> None:
    """Orders with a key, each of which is found again."""
    async with front.client() as client:
        async for _ in until_set(done):
            answer = await client.post("/v1/orders", json=ORDER, headers={"Idempotency-Key": secrets.token_hex(16)})
            found.append(outcome(answer))
            if answer.is_success:
                found.append(outcome(await client.delete(answer.headers["Location"])))


def outcome(answer: httpx.Response) -> int | str:
    """The status, and what a failure says."""
    return answer.status_code if answer.is_success else f"{answer.status_code} {answer.text}"


async def calls(front: Front, done: asyncio.Event, found: list[Any], options: Sequence[tuple[str, Any]] = ()) -> None:
    async with front.channel(*options) as channel:
        async for _ in until_set(done):
            found.append((await stub(channel).GetProduct(PRODUCT, timeout=10).code()).name)  # noqa: PERF401


async def calls_with_retries(front: Front, done: asyncio.Event, found: list[Any]) -> None:
    await calls(front, done, found, [("grpc.service_config", RETRIES)])


async def until_set(done: asyncio.Event) -> AsyncIterator[None]:
    """Again and again until an event is set."""
    while not done.is_set():
        yield
