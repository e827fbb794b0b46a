"""Quotes that are created, undone and confirmed, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from meshkit.testing import FakeClock
from pricing.domain import (
    InvalidRequest,
    Line,
    Money,
    Order,
    PriceChange,
    RequestIdReused,
    State,
    UnknownCurrency,
    UnknownQuote,
    UnknownSku,
)
from tests.databases import Hold
from tests.pricing.opened import prepare_database, store_on
from tests.pricing.placed import DAY, NOW, another_attempt, last_attempt_time, new_id, order_of, reach, rows, undo

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from meshkit.database.database import Database
    from meshkit.testing import SpanCapture
    from pricing.store import PriceStore

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]  # the first one starts PostgreSQL

ON_POSTGRESQL = pytest.mark.parametrize("shared_url", ["postgresql"], indirect=True)


# CreateQuote


async def test_a_repeat_adds_its_attempt_and_its_time_and_keeps_the_prices(
    store: PriceStore, database: Database, clock: FakeClock
) -> None:
    order = order_of()
    made = await store.create_quote(order)
    assert made.state is State.OPEN
    assert await rows(database) == [1, 2, 1]
    clock.advance(DAY)
    await store.set_price(PriceChange(new_id(), "TEA-0001", made.total._replace(minor=99_900)))
    assert await store.create_quote(another_attempt(order)) == made
    assert await rows(database) == [1, 2, 2]
    assert await last_attempt_time(database, order) == NOW + DAY
    assert await store.create_quote(order) == made
    assert await rows(database) == [1, 2, 2], "the same attempt counts once"


async def test_an_attempt_with_another_fingerprint_does_not_join(
    store: PriceStore, database: Database, clock: FakeClock
) -> None:
    order = order_of()
    await store.create_quote(order)
    clock.advance(DAY)
    with pytest.raises(RequestIdReused):
        await store.create_quote(replace(another_attempt(order), fingerprint="other"))
    assert await rows(database) == [1, 2, 1]
    assert await last_attempt_time(database, order) == NOW


@pytest.mark.parametrize("state", [State.CONFIRMED, State.COMMITTED])
async def test_an_attempt_at_a_confirmed_quote_only_sets_its_time(
    store: PriceStore, database: Database, clock: FakeClock, state: State
) -> None:
    order = order_of()
    await reach(state, store, order)
    clock.advance(DAY)
    assert (await store.create_quote(another_attempt(order))).state is state
    assert await rows(database) == [1, 2, 0]
    assert await last_attempt_time(database, order) == NOW + DAY


async def test_a_rejected_order_leaves_no_row(store: PriceStore, database: Database, clock: FakeClock) -> None:
    await store.set_price(PriceChange(new_id(), "TEA-0001", Money("KWD", 1_000_000_000)))
    order = order_of(("TEA-0001", 1), ("GONE", 1))
    with pytest.raises(UnknownSku):
        await store.create_quote(order)
    with pytest.raises(InvalidRequest):
        await store.create_quote(order_of(("TEA-0001", 10**9), currency="INR"))
    clock.now = datetime(2023, 1, 1, tzinfo=UTC)
    with pytest.raises(UnknownCurrency):
        await store.create_quote(order_of(("TEA-0001", 1), currency="JPY"))
    assert await rows(database) == [0, 0, 0]
    clock.now = NOW
    retried = replace(order, fingerprint="other", lines=(Line("TEA-0002", 1),))
    assert (await store.create_quote(retried)).fingerprint == "other"


async def test_concurrent_attempts_over_two_connections_share_one_quote(
    store: PriceStore, database: Database, shared_url: str, capture: SpanCapture
) -> None:
    attempts = [another_attempt(order) for order in [order_of()] * 20]
    async with prepare_database(shared_url, capture) as other:
        stores = [store, store_on(other, capture, FakeClock(NOW + 4000 * DAY))]
        made = await asyncio.gather(*(stores[at % 2].create_quote(order) for at, order in enumerate(attempts)))
    assert made == [made[0]] * 20
    assert await rows(database) == [1, 2, 20]


# UndoCreateQuote


async def test_undoing_the_only_attempt_leaves_no_row_and_frees_the_id(
    store: PriceStore, database: Database, clock: FakeClock
) -> None:
    order = order_of()
    await store.create_quote(order)
    assert await undo(store, order)
    assert not await undo(store, order)
    assert await rows(database) == [0, 0, 0]
    clock.advance(DAY)
    other = replace(another_attempt(order), fingerprint="other", lines=(Line("TEA-0002", 1),), currency="JPY")
    made = await store.create_quote(other)
    assert (made.create_time, made.total.currency, len(made.lines)) == (NOW + DAY, "JPY", 1)


async def test_a_quote_stays_until_each_of_its_attempts_is_undone(store: PriceStore, database: Database) -> None:
    first = order_of()
    second = another_attempt(first)
    made = await store.create_quote(first)
    await store.create_quote(second)
    assert not await undo(store, first)
    assert not await undo(store, first), "undoing one attempt twice counts once"
    assert await store.get_quote(first.request_id) == made
    assert await undo(store, second)
    assert await rows(database) == [0, 0, 0]


async def test_a_quote_with_an_attempt_without_an_id_cannot_be_undone(store: PriceStore) -> None:
    order = order_of()
    await store.create_quote(replace(order, attempt_id=""))
    await store.create_quote(order)
    assert not await undo(store, order)
    assert (await store.get_quote(order.request_id)).state is State.OPEN


async def test_undoing_an_attempt_that_never_arrived_changes_nothing(store: PriceStore, database: Database) -> None:
    order = order_of()
    made = await store.create_quote(order)
    assert not await undo(store, another_attempt(order))
    assert not await undo(store, replace(order, request_id=new_id()))
    assert await store.get_quote(order.request_id) == made
    assert await rows(database) == [1, 2, 1]


@pytest.mark.parametrize("state", [State.CONFIRMED, State.COMMITTED])
async def test_a_confirmed_quote_cannot_be_undone(store: PriceStore, state: State) -> None:
    order = order_of()
    await reach(state, store, order)
    assert not await undo(store, order)
    assert (await store.get_quote(order.request_id)).state is state


async def test_of_concurrent_attempts_and_undos_no_attempt_loses_its_quote(
    store: PriceStore, database: Database, shared_url: str, capture: SpanCapture
) -> None:
    async with prepare_database(shared_url, capture) as other:
        stores = [store, store_on(other, capture, FakeClock(NOW))]
        for _ in range(5):
            kept = order_of()
            refused = [another_attempt(kept) for _ in range(6)]

            async def place_and_undo(at: int, order: Order) -> None:
                await stores[at % 2].create_quote(order)
                await undo(stores[(at + 1) % 2], order)

            undone = (place_and_undo(at, order) for at, order in enumerate(refused))
            made, *_ = await asyncio.gather(stores[1].create_quote(kept), *undone)
            assert await store.get_quote(kept.request_id) == made
            assert await undo(store, kept)
        assert await rows(database) == [0, 0, 0]


@ON_POSTGRESQL
async def test_an_undo_waits_for_its_concurrent_attempt(store: PriceStore, database: Database) -> None:
    """An attempt of a disconnected client still waits for a lock; the undo waits for it and undoes it."""
    order, hold = order_of(), Hold()

    def lock_prices(connection: Connection) -> None:
        connection.execute(text("LOCK TABLE list_prices"))
        hold(connection)

    async def until_waiting(database: Database, *writes: asyncio.Task[Any]) -> None:
        """Waits until all of the writes wait for locks, or the last one has ended."""
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        async with database.read() as connection:
            while not writes[-1].done() and await connection.scalar(waiting) < len(writes):
                await asyncio.sleep(0)

    lock = asyncio.create_task(database.write(lock_prices))
    await hold.begun.wait()
    attempt = asyncio.create_task(store.create_quote(order))
    await until_waiting(database, attempt)
    attempt.cancel()
    undoing = asyncio.create_task(undo(store, order))
    await until_waiting(database, attempt, undoing)
    hold.let_go.set()
    await asyncio.wait({lock, attempt})
    assert await undoing
    assert await rows(database) == [0, 0, 0]


# ConfirmQuote


async def test_a_confirmed_quote_stays_confirmed(store: PriceStore, database: Database, clock: FakeClock) -> None:
    order = order_of()
    made = await store.create_quote(order)
    clock.advance(DAY)
    confirmed = await store.confirm_quote(order.request_id)
    assert confirmed == replace(made, state=State.CONFIRMED)
    assert await last_attempt_time(database, order) == NOW + DAY
    clock.advance(DAY)
    assert await store.confirm_quote(order.request_id) == confirmed
    assert await store.get_quote(order.request_id) == confirmed
    assert await last_attempt_time(database, order) == NOW + DAY, "a repeat writes nothing"


async def test_confirming_a_committed_quote_keeps_it_committed(store: PriceStore) -> None:
    order = order_of()
    await reach(State.COMMITTED, store, order)
    assert (await store.confirm_quote(order.request_id)).state is State.COMMITTED


async def test_an_unknown_quote_cannot_be_confirmed(store: PriceStore) -> None:
    with pytest.raises(UnknownQuote):
        await store.confirm_quote(new_id())
