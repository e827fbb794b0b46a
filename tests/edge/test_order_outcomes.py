"""The table of the storefront: each pair of outcomes of an order's halves, alone and beside another attempt.

A test plays a row of the table.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from api_edge.domain import Line, OrderState
from api_edge.rules import order_id
from meshkit.errors import FailedPrecondition, Internal, ServiceError
from tests.edge.backends import MADE, REFUSED, Killed
from tests.edge.order_table import (
    HALVES,
    OTHERS,
    OUTCOMES,
    assert_only_committed_orders_stay,
    assert_rows_of,
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

FEWER = [Line("TEA-0002", 1)]


@pytest.mark.parametrize("reserve", OUTCOMES)
@pytest.mark.parametrize("other", OTHERS)
async def test_an_attempt_returns_what_the_table_says_and_a_refused_one_leaves_nothing(
    mesh: Backends, reserve: str, other: str
) -> None:
    """Plays the cells of one row, and then forgets their orders together."""
    orders: dict[str, Order | None] = {}
    for quote in OUTCOMES:
        cell, key, process = (reserve, quote), new_key(), Killed(role="ours")
        before = await mesh.rows()
        result, orders[key] = await play(mesh, key, other, cell, process)
        assert_as_the_table_says(result, *cell)
        assert process.ended - HALVES == needed_undos(*cell), cell
        if orders[key]:
            assert await order_of(mesh, key) == orders[key], cell
        elif isinstance(result, ServiceError):
            assert await mesh.rows() == before, cell
            await assert_free(mesh, key)
        else:
            assert await order_of(mesh, key) == result, cell
    await assert_only_committed_orders_stay(mesh, orders)


@pytest.mark.parametrize("repeated", ["repeated", "not repeated"])
async def test_a_commit_killed_at_any_step_may_be_repeated_and_a_committed_order_keeps_its_quote(
    mesh: Backends, repeated: str
) -> None:
    committed: dict[str, Order] = {}
    for held in ("ConfirmQuote", "CommitReservation", None):
        placed = await other_attempt(mesh, key := new_key())
        process = Killed(frozenset({held} if held else ()))
        async with mesh.storefront(process) as storefront:
            ours = asyncio.create_task(storefront.commit_order(order_id(key)))
            await (process.wait(set(), {held}) if held else process.wait({"CommitReservation"}, set()))
            ours.cancel()
        if repeated == "repeated":
            assert (await mesh.shop.commit_order(order_id(key))).quote == placed.quote, held
        if repeated == "repeated" or held is None:
            committed[key] = placed
    await mesh.expire_and_purge()
    for key, placed in committed.items():
        kept = await order_of(mesh, key)
        assert (kept.reservation.state, kept.quote) == (OrderState.COMMITTED, placed.quote)
        assert await other_attempt(mesh, key) == kept
    await assert_rows_of(mesh, len(committed))


def assert_as_the_table_says(result: Any, reserve: str, quote: str) -> None:
    if (failed := reserve if reserve != MADE else quote) != MADE:
        assert isinstance(result, FailedPrecondition if failed == REFUSED else Internal), (reserve, quote)
    else:
        assert result.reservation.fingerprint == result.quote.fingerprint


async def assert_free(mesh: Backends, key: str) -> None:
    """The key may be used for another order."""
    placed = await mesh.shop.place_order(key, FEWER, "USD")
    assert placed.quote.currency == "USD"
    await mesh.shop.release_order(order_id(key))
