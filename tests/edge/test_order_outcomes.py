"""The table of the storefront: each pair of outcomes of an order's halves, alone and beside another attempt.

Each cell is also tried with a process that is killed between any two of its steps.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from api_edge.domain import Line, OrderState, UnknownOrder
from api_edge.rules import order_id
from meshkit.errors import FailedPrecondition, Internal, ServiceError
from tests.edge.backends import FAILED, LOST, MADE, REFUSED, Backends, Killed, backends
from tests.edge.databases import two_databases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from api_edge.domain import Order

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

LINES = [Line("TEA-0001", 1)]
FEWER = [Line("TEA-0002", 1)]
OUTCOMES = [MADE, REFUSED, LOST, FAILED]
HALVES = {"ReserveStock", "CreateQuote"}
OTHERS = ["alone", "beside another attempt", "after an answered attempt", "after a commit"]

CELLS = list(itertools.product(OUTCOMES, OUTCOMES))


def needed_undos(reserve: str, quote: str) -> set[str]:
    """What the table says is undone."""
    outcomes = {"UndoReserveStock": reserve, "UndoCreateQuote": quote}
    if set(outcomes.values()) == {MADE}:
        return set()
    return {undo for undo, outcome in outcomes.items() if outcome != REFUSED}


def kills() -> list[tuple[str, str, set[str]]]:
    """Each cell with each choice of its undos that a killed process does not send."""
    return [
        (*cell, set(held))
        for cell in CELLS
        for count in (1, 2)
        for held in itertools.combinations(sorted(needed_undos(*cell)), count)
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backends]:
    async with two_databases(request, tmp_path_factory.mktemp("orders")) as urls, backends(*urls) as running:
        yield running


@pytest.fixture
def key() -> str:
    return str(uuid.uuid4())


@pytest.fixture(autouse=True)
def _fresh_script(mesh: Backends) -> None:
    mesh.script.outcomes, mesh.script.reached = {}, 0
    mesh.script.respond = asyncio.Event()


async def other_attempt(mesh: Backends, key: str, *, commit: bool = False) -> Order:
    """The same order, placed by another client and answered."""
    placed = await mesh.shop.place_order(key, LINES, "EUR")
    return await mesh.shop.commit_order(order_id(key)) if commit else placed


async def play(
    mesh: Backends, key: str, other: str, process: Killed
) -> tuple[Order | ServiceError | None, Order | None]:
    """One attempt as the script says, and another one; what both were answered, None for a killed process."""
    answered = None
    if other.startswith("after"):
        answered = await other_attempt(mesh, key, commit=other == "after a commit")
    async with mesh.storefront(process) as storefront:
        ours = asyncio.create_task(storefront.place_order(key, LINES, "EUR"))
        while mesh.script.reached < 2 and not ours.done():
            await asyncio.sleep(0.001)
        if other == "beside another attempt":
            answered = await other_attempt(mesh, key)
        mesh.script.respond.set()
        if held := set(process.before):
            undos = needed_undos(*(mesh.script.outcomes[method] for method in ("ReserveStock", "CreateQuote")))
            await process.wait(HALVES | undos - held, held)
            ours.cancel()
            return None, answered
        try:
            return await ours, answered
        except ServiceError as error:
            return error, answered


@pytest.mark.parametrize(("reserve", "quote"), CELLS)
@pytest.mark.parametrize("other", OTHERS)
async def test_an_attempt_returns_what_the_table_says_and_a_refused_one_leaves_nothing(
    mesh: Backends, key: str, reserve: str, quote: str, other: str
) -> None:
    mesh.script.outcomes = {"ReserveStock": reserve, "CreateQuote": quote}
    before = await mesh.rows()
    process = Killed(role="ours")
    result, answered = await play(mesh, key, other, process)
    assert_as_the_table_says(result, reserve, quote)
    assert process.ended - HALVES == needed_undos(reserve, quote)
    if answered:
        assert await order_of(mesh, key) == answered
    elif isinstance(result, ServiceError):
        assert await mesh.rows() == before
        await assert_free(mesh, key)
    else:
        assert await order_of(mesh, key) == result
    await assert_only_committed_orders_stay(mesh, before, key, answered)


@pytest.mark.parametrize(("reserve", "quote", "held"), kills())
@pytest.mark.parametrize("other", OTHERS)
async def test_a_process_killed_before_an_undo_loses_no_answered_order_and_leaves_nothing_after_the_purge(
    mesh: Backends, key: str, reserve: str, quote: str, other: str, held: set[str]
) -> None:
    mesh.script.outcomes = {"ReserveStock": reserve, "CreateQuote": quote}
    before = await mesh.rows()
    _, answered = await play(mesh, key, other, Killed(frozenset(held), role="ours"))
    if answered:
        assert await order_of(mesh, key) == answered
    await assert_only_committed_orders_stay(mesh, before, key, answered)


@pytest.mark.parametrize("arrives", [set(), {"ReserveStock"}, {"CreateQuote"}], ids=["none", "R", "Q"])
@pytest.mark.parametrize("other", OTHERS)
async def test_a_process_killed_while_it_places_an_order_loses_no_answered_order_and_leaves_nothing_after_the_purge(
    mesh: Backends, key: str, arrives: set[str], other: str
) -> None:
    mesh.script.respond.set()
    before, answered = await mesh.rows(), None
    if other.startswith("after"):
        answered = await other_attempt(mesh, key, commit=other == "after a commit")
    held = HALVES - arrives
    process = Killed(frozenset(held))
    async with mesh.storefront(process) as storefront:
        ours = asyncio.create_task(storefront.place_order(key, LINES, "EUR"))
        await process.wait(arrives, held)
        if other == "beside another attempt":
            answered = await other_attempt(mesh, key)
        ours.cancel()
    repeated = await other_attempt(mesh, key)
    assert await order_of(mesh, key) == (answered or repeated)
    await assert_only_committed_orders_stay(mesh, before, key, answered)


@pytest.mark.parametrize("held", ["ConfirmQuote", "CommitReservation", None])
@pytest.mark.parametrize("repeated", ["repeated", "not repeated"])
async def test_a_commit_killed_at_any_step_may_be_repeated_and_a_committed_order_keeps_its_quote(
    mesh: Backends, key: str, held: str | None, repeated: str
) -> None:
    before, placed = await mesh.rows(), await other_attempt(mesh, key)
    process = Killed(frozenset({held} if held else ()))
    async with mesh.storefront(process) as storefront:
        ours = asyncio.create_task(storefront.commit_order(order_id(key)))
        await (process.wait(set(), {held}) if held else process.wait({"CommitReservation"}, set()))
        ours.cancel()
    if repeated == "repeated":
        assert (await mesh.shop.commit_order(order_id(key))).quote == placed.quote
    committed = repeated == "repeated" or held is None
    await mesh.expire_and_purge()
    if committed:
        kept = await order_of(mesh, key)
        assert (kept.reservation.state, kept.quote) == (OrderState.COMMITTED, placed.quote)
        assert await other_attempt(mesh, key) == kept
    await assert_rows_of(mesh, before, committed=committed)


async def order_of(mesh: Backends, key: str) -> Order:
    return await mesh.shop.order(order_id(key))


def assert_as_the_table_says(result: Any, reserve: str, quote: str) -> None:
    if (failed := reserve if reserve != MADE else quote) != MADE:
        assert isinstance(result, FailedPrecondition if failed == REFUSED else Internal)
    else:
        assert result.reservation.fingerprint == result.quote.fingerprint


async def assert_free(mesh: Backends, key: str) -> None:
    """The key may be used for another order."""
    placed = await mesh.shop.place_order(key, FEWER, "USD")
    assert placed.quote.currency == "USD"
    await mesh.shop.release_order(order_id(key))


async def assert_only_committed_orders_stay(
    mesh: Backends, before: dict[str, int], key: str, answered: Order | None
) -> None:
    await mesh.expire_and_purge()
    committed = answered is not None and answered.reservation.state is OrderState.COMMITTED
    if committed:
        assert await order_of(mesh, key) == answered
    else:
        with pytest.raises(UnknownOrder):
            await order_of(mesh, key)
    await assert_rows_of(mesh, before, committed=committed)


async def assert_rows_of(mesh: Backends, before: dict[str, int], *, committed: bool) -> None:
    """The rows of one order of one line have come, without attempts, or none."""
    came = {"reservations", "reservation_lines", "quotes", "quote_lines"} if committed else set()
    assert await mesh.rows() == {table: rows + (table in came) for table, rows in before.items()}
