"""An edge that accepts connections and answers nothing: its process is stopped by SIGSTOP behind each gateway."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from localmesh.gateways.known import GATEWAYS
from tests.gateways.envoy import envoy
from tests.gateways.killed import edge_processes
from tests.gateways.shop import new_place
from tests.gateways.test_answers import PRODUCT, stub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from tests.gateways.front import Front
    from tests.gateways.killed import EdgeProcess
    from tests.gateways.shop import Place, Shop

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

CALLS, FEW = 6, 12
DEADLINE = 0.3
NO_CHECKS = pytest.mark.xfail(
    reason="it has no active health checks, and a caller that goes is no failure of the edge: "
    "https://nginx.org/en/docs/http/ngx_http_upstream_module.html#health_check",
    strict=True,
)
EVERY = [pytest.param(name, marks=[NO_CHECKS] if name == "nginx" else []) for name in GATEWAYS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(running_shop: Shop) -> AsyncIterator[tuple[tuple[Place, Place], EdgeProcess]]:
    """The places of two edges, and the process of the first."""
    places = new_place(), new_place()
    async with edge_processes(running_shop.mesh, *places) as processes:
        yield places, processes[0]


@asynccontextmanager
async def in_front(shop: Shop, name: str, places: tuple[Place, Place]) -> AsyncIterator[Front]:
    """A gateway in front of both edges, which has found them."""
    if name != "envoy":
        async with shop.front(name, *places) as front:
            yield front
        return
    shop.started += 1
    rest, rpc = [place.rest for place in places], [place.rpc for place in places]
    async with envoy(shop.folder / f"silent-{shop.started}", shop.authority, rest, rpc, 2) as running:
        yield running.front


async def codes(channel: grpc.aio.Channel) -> set[str]:
    """The statuses of some calls at once."""
    calls = [stub(channel).GetProduct(PRODUCT, timeout=DEADLINE).code() for _ in range(CALLS)]
    return {code.name for code in await asyncio.gather(*calls)}


@pytest.mark.parametrize("name", GATEWAYS)
async def test_a_call_of_a_silent_edge_ends_at_its_deadline_and_others_are_answered(
    shop: Shop, edges: tuple[tuple[Place, Place], EdgeProcess], name: str
) -> None:
    places, process = edges
    async with in_front(shop, name, places) as front, front.channel() as channel:
        while await codes(channel) != {"OK"}:
            pass
        with process.frozen():
            assert await codes(channel) == {"OK", "DEADLINE_EXCEEDED"}


@pytest.mark.parametrize("name", EVERY)
async def test_a_silent_edge_is_left_out(shop: Shop, edges: tuple[tuple[Place, Place], EdgeProcess], name: str) -> None:
    places, process = edges
    async with in_front(shop, name, places) as front, front.channel() as channel:
        with process.frozen():
            rounds = [await codes(channel) == {"OK"} for _ in range(FEW)]
            while not any(rounds) and name != "nginx":
                rounds.append(await codes(channel) == {"OK"})
    assert any(rounds)
