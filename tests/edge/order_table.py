"""The table of the storefront: the outcomes of an order's halves, played beside another attempt."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from api_edge.domain import Line, OrderState
from api_edge.rules import order_id
from meshkit.errors import ServiceError
from tests.edge.backends import FAILED, LOST, MADE, REFUSED, Backends, Killed

if TYPE_CHECKING:
    from api_edge.domain import Order

LINES = [Line("TEA-0001", 1)]
OUTCOMES = [MADE, REFUSED, LOST, FAILED]
HALVES = {"ReserveStock", "CreateQuote"}
OTHERS = ["alone", "beside another attempt", "after an answered attempt", "after a commit"]


def needed_undos(reserve: str, quote: str) -> set[str]:
    """What the table says is undone."""
    outcomes = {"UndoReserveStock": reserve, "UndoCreateQuote": quote}
    if set(outcomes.values()) == {MADE}:
        return set()
    return {undo for undo, outcome in outcomes.items() if outcome != REFUSED}


def new_key() -> str:
    return str(uuid.uuid4())


async def other_attempt(mesh: Backends, key: str, *, commit: bool = False) -> Order:
    """The same order, placed by another client and answered."""
    placed = await mesh.shop.place_order(key, LINES, "EUR")
    return await mesh.shop.commit_order(order_id(key)) if commit else placed


async def play(
    mesh: Backends, key: str, other: str, cell: tuple[str, str], process: Killed
) -> tuple[Order | ServiceError | None, Order | None]:
    """One attempt whose halves have these outcomes, and another one; what both were answered, None if killed."""
    answered = None
    mesh.script.reset(dict(zip(("ReserveStock", "CreateQuote"), cell, strict=True)))
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
            await process.wait(HALVES | needed_undos(*cell) - held, held)
            ours.cancel()
            return None, answered
        try:
            return await ours, answered
        except ServiceError as error:
            return error, answered


async def order_of(mesh: Backends, key: str) -> Order:
    return await mesh.shop.order(order_id(key))


async def assert_only_committed_orders_stay(mesh: Backends, orders: dict[str, Order | None]) -> None:
    """Asserts that a purge leaves no row of any order but those whose other attempt was answered as committed."""
    await mesh.expire_and_purge()
    answers = {key: order for key, order in orders.items() if order and order.reservation.state is OrderState.COMMITTED}
    assert {key: await order_of(mesh, key) for key in answers} == answers
    await assert_rows_of(mesh, len(answers))


async def assert_rows_of(mesh: Backends, orders: int) -> None:
    """Asserts that all rows are those of orders of one line, without attempts."""
    kept = {"reservations", "reservation_lines", "quotes", "quote_lines"}
    assert await mesh.rows() == {table: orders * (table in kept) for table in await mesh.rows()}
