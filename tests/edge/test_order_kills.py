"""A process that is killed between any two of its steps, in each cell of the table of the storefront."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from tests.edge.backends import Killed
from tests.edge.order_table import (
    HALVES,
    LINES,
    OTHERS,
    OUTCOMES,
    assert_only_committed_orders_stay,
    needed_undos,
    new_key,
    order_of,
    other_attempt,
    play,
)

if TYPE_CHECKING:
    from api_edge.domain import Order
    from tests.edge.backends import Backends

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


def kills(reserve: str) -> list[tuple[str, set[str]]]:
    """The cells of one row, each with each choice of its undos that a killed process does not send."""
    return [
        (quote, set(held))
        for quote in OUTCOMES
        for count in (1, 2)
        for held in itertools.combinations(sorted(needed_undos(reserve, quote)), count)
    ]


@pytest.mark.parametrize("reserve", OUTCOMES)
@pytest.mark.parametrize("other", OTHERS)
async def test_a_process_killed_before_an_undo_loses_no_answered_order_and_leaves_nothing_after_the_purge(
    mesh: Backends, reserve: str, other: str
) -> None:
    orders: dict[str, Order | None] = {}
    for quote, held in kills(reserve):
        key = new_key()
        _, orders[key] = await play(mesh, key, other, (reserve, quote), Killed(frozenset(held), role="ours"))
        if orders[key]:
            assert await order_of(mesh, key) == orders[key], (quote, held)
    await assert_only_committed_orders_stay(mesh, orders)


@pytest.mark.parametrize("other", OTHERS)
async def test_a_process_killed_while_it_places_an_order_loses_no_answered_order_and_leaves_nothing_after_the_purge(
    mesh: Backends, other: str
) -> None:
    mesh.script.reset(respond=True)
    orders: dict[str, Order | None] = {}
    for arrives in (set[str](), {"ReserveStock"}, {"CreateQuote"}):
        key, held, answered = new_key(), HALVES - arrives, None
        process = Killed(frozenset(held))
        if other.startswith("after"):
            answered = await other_attempt(mesh, key, commit=other == "after a commit")
        async with mesh.storefront(process) as storefront:
            ours = asyncio.create_task(storefront.place_order(key, LINES, "EUR"))
            await process.wait(arrives, held)
            if other == "beside another attempt":
                answered = await other_attempt(mesh, key)
            ours.cancel()
        repeated = await other_attempt(mesh, key)
        assert await order_of(mesh, key) == (answered or repeated), arrives
        orders[key] = answered
    await assert_only_committed_orders_stay(mesh, orders)
