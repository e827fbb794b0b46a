"""Stock and reservations on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from inventory import tables
from inventory.domain import (
    Adjustment,
    AdjustmentBelowReserved,
    InsufficientStock,
    Line,
    RequestIdReused,
    Reservation,
    ReservationCommitted,
    ReservationExpired,
    ReservationReleased,
    ReservationRequest,
    State,
    Stock,
    UnknownReservation,
    UnknownSku,
)
from inventory.expiring import SWEEP_BATCH
from inventory.seed import read_catalogue
from meshkit.service import utc_now
from tests.databases import Hold
from tests.inventory.opened import (
    HOLD,
    another_attempt,
    count,
    new_id,
    prepare_database,
    request_for,
    stock_of,
    store_on,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sqlalchemy import Connection

    from inventory.store import InventoryStore
    from meshkit.database.database import Database
    from meshkit.errors import ServiceError
    from meshkit.testing import FakeClock, SpanCapture

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]  # the first one starts PostgreSQL

MOMENT = timedelta(microseconds=1)
ON_POSTGRESQL = pytest.mark.parametrize("shared_url", ["postgresql"], indirect=True)


# The catalogue


async def test_a_new_database_holds_the_catalogue(store: InventoryStore) -> None:
    catalogue = read_catalogue()
    assert len(catalogue) >= 200
    page = await store.page("", 100)
    assert [stock.sku for stock in page.stocks] == sorted(str(row["sku"]) for row in catalogue)[:100]
    assert any(row["on_hand"] == 0 for row in catalogue)
    assert sum(0 < int(row["on_hand"]) < 20 for row in catalogue) >= 5
    assert await stock_of(store, "TEA-0001") == Stock(
        sku="TEA-0001",
        title="Darjeeling First Flush Margaret's Hope, 100 g",
        category="tea",
        on_hand=500,
        reserved=0,
        version=1,
    )


async def test_the_migrations_create_the_tables_of_the_code(database: Database) -> None:
    async with database.read() as connection:
        context = await connection.run_sync(MigrationContext.configure)
        assert await connection.run_sync(lambda _: compare_metadata(context, tables.metadata)) == []


async def test_the_pages_hold_every_stock_once_in_order(store: InventoryStore) -> None:
    after: str | None = ""
    found: list[str] = []
    while after is not None:
        page = await store.page(after, 37)
        found += [stock.sku for stock in page.stocks]
        after = page.next_after
    assert found == sorted(str(row["sku"]) for row in read_catalogue())


async def test_skus_sort_by_their_bytes_on_every_database(store: InventoryStore, database: Database) -> None:
    names = ["a", "B", "Z", "é", "~", "TEA 1", "TEA-1"]
    rows = [{"sku": sku, "title": "", "category": "", "on_hand": 0, "reserved": 0, "version": 1} for sku in names]
    await database.write(lambda connection: connection.execute(tables.stock.delete()))
    await database.write(lambda connection: connection.execute(tables.stock.insert(), rows))
    assert [stock.sku for stock in (await store.page("", 100)).stocks] == sorted(names, key=str.encode)


async def test_a_batch_read_skips_unknown_skus(store: InventoryStore) -> None:
    assert (await store.stocks(["TEA-0002", "NO-SUCH", "TEA-0001"])).keys() == {"TEA-0001", "TEA-0002"}


# ReserveStock


async def test_a_reservation_holds_its_units_until_it_expires(store: InventoryStore, clock: FakeClock) -> None:
    request = request_for(("TEA-0002", 2), ("TEA-0001", 3))
    made = await store.reserve(request)
    assert made == Reservation(request.request_id, "digest", State.RESERVED, request.lines, clock.now, clock.now + HOLD)
    assert await store.reservation(request.request_id) == made
    stock = await stock_of(store, "TEA-0001")
    assert (stock.on_hand, stock.reserved, stock.available, stock.version) == (500, 3, 497, 2)


async def test_a_repeated_request_reserves_once(store: InventoryStore) -> None:
    request = request_for(("TEA-0001", 3))
    made = await store.reserve(request)
    assert await store.reserve(request) == made
    assert await store.reserve(another_attempt(request)) == made
    assert (await stock_of(store, "TEA-0001")).reserved == 3


async def test_a_known_id_with_another_fingerprint_is_rejected(store: InventoryStore) -> None:
    request = request_for(("TEA-0001", 3))
    await store.reserve(request)
    with pytest.raises(RequestIdReused) as failure:
        await store.reserve(replace(another_attempt(request), fingerprint="other"))
    assert failure.value.fields == {"request_id": request.request_id}
    assert await store.undo(request.request_id, request.attempt_id), "the rejected attempt did not join"


async def test_a_request_with_one_unavailable_line_reserves_nothing(store: InventoryStore) -> None:
    request = request_for(("TEA-0001", 3), ("TEA-0002", 61), ("TEA-0003", 10_000))
    with pytest.raises(InsufficientStock) as failure:
        await store.reserve(request)
    assert failure.value.fields == {"sku": "TEA-0002", "requested": "61", "available": "60"}
    with pytest.raises(UnknownReservation):
        await store.reservation(request.request_id)
    assert (await stock_of(store, "TEA-0001")).version == 1


async def test_a_rejected_request_may_be_retried(store: InventoryStore) -> None:
    request = request_for(("TEA-0002", 61))
    with pytest.raises(InsufficientStock):
        await store.reserve(request)
    await store.adjust(Adjustment(new_id(), "TEA-0002", 1))
    assert (await store.reserve(request)).state is State.RESERVED


async def test_the_error_names_the_unknown_sku(store: InventoryStore) -> None:
    with pytest.raises(UnknownSku) as failure:
        await store.reserve(request_for(("TEA-0001", 1), ("NO-SUCH", 1), ("NOR-THIS", 1)))
    assert failure.value.fields == {"sku": "NO-SUCH"}
    assert (await stock_of(store, "TEA-0001")).reserved == 0


async def test_concurrent_attempts_over_two_connections_make_one_reservation(
    shared_url: str, store: InventoryStore, clock: FakeClock, capture: SpanCapture
) -> None:
    async with prepare_database(shared_url, capture) as other:
        second = store_on(other, capture, clock)
        request = request_for(("TEA-0001", 1))
        stores = [store, second] * 10
        made = await asyncio.gather(*(each.reserve(another_attempt(request)) for each in stores))
    assert made == [made[0]] * 20
    assert (await stock_of(store, "TEA-0001")).reserved == 1


async def test_of_two_concurrent_requests_with_one_id_and_different_content_one_is_rejected(
    store: InventoryStore,
) -> None:
    request = request_for(("TEA-0001", 1))
    outcomes = await asyncio.gather(
        store.reserve(request),
        store.reserve(replace(another_attempt(request), fingerprint="other")),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RequestIdReused", "Reservation"]


async def test_requests_for_the_same_skus_in_different_order_do_not_deadlock(store: InventoryStore) -> None:
    skus = ["TEA-0001", "TEA-0004", "CUP-0001"]
    orders = [request_for(*((sku, 1) for sku in order)) for order in itertools.permutations(skus)] * 5
    await asyncio.gather(*(store.reserve(replace(order, request_id=new_id())) for order in orders))
    assert {(await stock_of(store, sku)).reserved for sku in skus} == {30}


# UndoReserveStock


async def test_undoing_the_only_attempt_deletes_the_reservation(store: InventoryStore, database: Database) -> None:
    request = request_for(("TEA-0001", 3), ("TEA-0002", 1))
    await store.reserve(request)
    assert await store.undo(request.request_id, request.attempt_id)
    with pytest.raises(UnknownReservation):
        await store.reservation(request.request_id)
    assert (await stock_of(store, "TEA-0001")).available == 500
    assert [await count(database, table) for table in ("reservation_lines", "reservation_attempts")] == [0, 0]
    assert not await store.undo(request.request_id, request.attempt_id)


async def test_a_reservation_stays_until_each_of_its_attempts_is_undone(store: InventoryStore) -> None:
    first = request_for(("TEA-0001", 3))
    second = another_attempt(first)
    await store.reserve(first)
    await store.reserve(second)
    assert not await store.undo(first.request_id, first.attempt_id)
    assert not await store.undo(first.request_id, first.attempt_id), "undoing one attempt twice counts once"
    assert (await store.reservation(first.request_id)).state is State.RESERVED
    assert await store.undo(second.request_id, second.attempt_id)


async def test_undoing_an_unknown_attempt_changes_nothing(store: InventoryStore) -> None:
    request = request_for(("TEA-0001", 3))
    await store.reserve(request)
    assert not await store.undo(request.request_id, new_id())
    assert not await store.undo(new_id(), request.attempt_id)
    assert (await store.reservation(request.request_id)).state is State.RESERVED


@ON_POSTGRESQL
async def test_an_undo_waits_for_its_concurrent_attempt(database: Database, capture: SpanCapture) -> None:
    """An attempt of a disconnected client still waits for a lock; the undo waits for it and undoes it."""
    request, hold = request_for(("TEA-0001", 3)), Hold()

    def lock_stock(connection: Connection) -> None:
        connection.execute(select(tables.stock).with_for_update())
        hold(connection)

    async def until_waiting(database: Database, *writes: asyncio.Task[Any]) -> None:
        """Waits until all of the writes wait for locks, or the last one has ended."""
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        async with database.read() as connection:
            while not writes[-1].done() and await connection.scalar(waiting) < len(writes):
                await asyncio.sleep(0)

    store = store_on(database, capture, utc_now)
    lock = asyncio.create_task(database.write(lock_stock))
    await hold.begun.wait()
    attempt = asyncio.create_task(store.reserve(request))
    await until_waiting(database, attempt)
    attempt.cancel()
    undo = asyncio.create_task(store.undo(request.request_id, request.attempt_id))
    await until_waiting(database, attempt, undo)
    hold.let_go.set()
    await asyncio.wait({lock, attempt})
    assert await undo
    with pytest.raises(UnknownReservation):
        await store.reservation(request.request_id)
    assert (await stock_of(store, "TEA-0001")).reserved == 0


async def test_after_an_undo_the_id_may_be_used_for_a_different_request(store: InventoryStore) -> None:
    request = request_for(("TEA-0001", 3))
    await store.reserve(request)
    await store.undo(request.request_id, request.attempt_id)
    other = replace(another_attempt(request), fingerprint="other", lines=(Line("TEA-0002", 1),))
    assert (await store.reserve(other)).lines == (Line("TEA-0002", 1),)


async def test_a_final_reservation_cannot_be_undone(
    store: InventoryStore, database: Database, clock: FakeClock
) -> None:
    committed, released, expired = (request_for(("TEA-0001", 3)) for _ in range(3))
    for request in (committed, released, expired):
        await store.reserve(request)
    await store.commit(committed.request_id)
    await store.release(released.request_id)
    clock.advance(HOLD)
    for request in (committed, released, expired):
        assert not await store.undo(request.request_id, request.attempt_id)
    await store.sweep()
    assert await count(database, "reservation_attempts") == 0
    assert await count(database, "reservations") == 3


async def test_an_attempt_does_not_join_a_final_reservation(store: InventoryStore, database: Database) -> None:
    request = request_for(("TEA-0001", 3))
    await store.reserve(request)
    await store.commit(request.request_id)
    assert (await store.reserve(another_attempt(request))).state is State.COMMITTED
    assert await count(database, "reservation_attempts") == 0


async def test_an_attempt_that_saw_the_expiry_prevents_an_undo(store: InventoryStore, clock: FakeClock) -> None:
    """Clocks of two processes differ, and those of one may be set back."""
    request = request_for(("TEA-0001", 3))
    await store.reserve(request)
    clock.advance(HOLD)
    assert (await store.reserve(another_attempt(request))).state is State.EXPIRED
    clock.advance(-MOMENT)
    assert not await store.undo(request.request_id, request.attempt_id)
    assert (await store.reservation(request.request_id)).state is State.RESERVED


# CommitReservation and ReleaseReservation


async def test_a_commit_removes_the_units_once(store: InventoryStore) -> None:
    request = request_for(("TEA-0001", 3))
    made = await store.reserve(request)
    assert await store.commit(request.request_id) == replace(made, state=State.COMMITTED)
    assert await store.commit(request.request_id) == replace(made, state=State.COMMITTED)
    stock = await stock_of(store, "TEA-0001")
    assert (stock.on_hand, stock.reserved, stock.version) == (497, 0, 3)
    with pytest.raises(ReservationCommitted) as failure:
        await store.release(request.request_id)
    assert failure.value.fields == {"reservation_id": request.request_id}


async def test_a_release_returns_the_units_once(store: InventoryStore) -> None:
    request = request_for(("TEA-0001", 3))
    made = await store.reserve(request)
    assert await store.release(request.request_id) == replace(made, state=State.RELEASED)
    assert await store.release(request.request_id) == replace(made, state=State.RELEASED)
    stock = await stock_of(store, "TEA-0001")
    assert (stock.on_hand, stock.reserved, stock.version) == (500, 0, 3)
    with pytest.raises(ReservationReleased):
        await store.commit(request.request_id)


async def test_an_unknown_reservation_can_be_neither_committed_nor_released(store: InventoryStore) -> None:
    for call in (store.commit, store.release, store.reservation):
        with pytest.raises(UnknownReservation):
            await call(new_id())


async def test_a_reservation_with_another_fingerprint_can_be_neither_committed_nor_released(
    store: InventoryStore,
) -> None:
    request = request_for(("TEA-0001", 3), fingerprint="mine")
    await store.reserve(request)
    for call in (store.commit, store.release):
        with pytest.raises(UnknownReservation):
            await call(request.request_id, "other")
    assert (await store.commit(request.request_id, "mine")).state is State.COMMITTED


async def test_of_a_concurrent_commit_and_release_one_wins(store: InventoryStore) -> None:
    for _ in range(5):
        request = request_for(("TEA-0001", 3))
        await store.reserve(request)
        calls = [store.commit, store.release] * 3
        await asyncio.gather(*(call(request.request_id) for call in calls), return_exceptions=True)
        assert (await store.reservation(request.request_id)).state in {State.COMMITTED, State.RELEASED}
    stock = await stock_of(store, "TEA-0001")
    assert stock.reserved == 0
    assert (500 - stock.on_hand) % 3 == 0


async def test_a_reservation_is_expired_at_its_expire_time_before_any_sweep(
    store: InventoryStore, clock: FakeClock
) -> None:
    request = request_for(("TEA-0001", 3))
    made = await store.reserve(request)
    clock.advance(HOLD - MOMENT)
    assert await store.reservation(request.request_id) == made
    clock.advance(MOMENT)
    expired = replace(made, state=State.EXPIRED)
    assert await store.reservation(request.request_id) == expired
    assert await store.reserve(another_attempt(request)) == expired
    for call in (store.commit, store.release):
        with pytest.raises(ReservationExpired):
            await call(request.request_id)
    assert (await stock_of(store, "TEA-0001")).reserved == 3, "not swept yet"
    assert await store.sweep() == 1
    assert await store.reservation(request.request_id) == expired
    for call in (store.commit, store.release):
        with pytest.raises(ReservationExpired):
            await call(request.request_id)


# The sweeper


async def test_a_sweep_returns_the_units_of_expired_reservations_once(store: InventoryStore, clock: FakeClock) -> None:
    await store.reserve(request_for(("TEA-0001", 3), ("TEA-0002", 1)))
    await store.reserve(request_for(("TEA-0001", 4)))
    clock.advance(HOLD)
    await store.reserve(request_for(("TEA-0001", 5)))
    assert await asyncio.gather(*(store.sweep() for _ in range(4))) in [
        list(order) for order in set(itertools.permutations([2, 0, 0, 0]))
    ]
    assert [(await stock_of(store, sku)).reserved for sku in ("TEA-0001", "TEA-0002")] == [5, 0]
    assert await store.sweep() == 0


async def test_a_sweep_is_limited_and_the_next_one_continues(store: InventoryStore, clock: FakeClock) -> None:
    await asyncio.gather(*(store.reserve(request_for(("TEA-0001", 1))) for _ in range(SWEEP_BATCH + 1)))
    clock.advance(HOLD)
    assert [await store.sweep() for _ in range(3)] == [SWEEP_BATCH, 1, 0]
    assert (await stock_of(store, "TEA-0001")).reserved == 0


async def test_units_of_an_expired_reservation_are_available(store: InventoryStore, clock: FakeClock) -> None:
    await store.reserve(request_for(("TEA-0002", 60)))
    with pytest.raises(InsufficientStock):
        await store.reserve(request_for(("TEA-0002", 60)))
    clock.advance(HOLD)
    assert (await store.reserve(request_for(("TEA-0002", 60)))).state is State.RESERVED


async def test_units_of_many_expired_reservations_are_available(store: InventoryStore, clock: FakeClock) -> None:
    await asyncio.gather(*(store.reserve(request_for(("TEA-0001", 1))) for _ in range(SWEEP_BATCH)))
    clock.advance(MOMENT)
    await store.reserve(request_for(("TEA-0002", 60)))
    clock.advance(HOLD)
    assert (await store.reserve(request_for(("TEA-0002", 60)))).state is State.RESERVED


async def test_units_of_an_expired_reservation_are_available_to_concurrent_requests(
    store: InventoryStore, clock: FakeClock
) -> None:
    await store.reserve(request_for(("TEA-0002", 60)))
    clock.advance(HOLD)
    await asyncio.gather(*(store.reserve(request_for(("TEA-0002", 6))) for _ in range(10)))
    assert (await stock_of(store, "TEA-0002")).reserved == 60


async def test_a_sweep_is_traced_only_when_it_found_something(
    store: InventoryStore, clock: FakeClock, capture: SpanCapture
) -> None:
    await store.reserve(request_for(("TEA-0001", 1)))
    assert await store.sweep() == 0
    assert capture.spans() == []
    clock.advance(HOLD)
    assert await store.sweep() == 1
    (sweep,) = capture.spans("sweep expired reservations")
    assert sweep.parent is None
    assert dict(sweep.attributes or {}) == {"inventory.expired_reservations": 1}
    statements = [span for span in capture.spans() if span is not sweep]
    assert {span.parent.span_id for span in statements if span.parent} == {sweep.context.span_id}
    assert "UPDATE stock" in {span.name for span in statements}


# AdjustStock


async def test_a_repeated_adjustment_is_applied_once(store: InventoryStore) -> None:
    adjustment = Adjustment(new_id(), "TEA-0001", -5)
    adjusted = await asyncio.gather(*(store.adjust(adjustment) for _ in range(5)))
    assert {(stock.on_hand, stock.version) for stock in adjusted} == {(495, 2)}


async def test_a_different_adjustment_with_a_known_id_is_rejected(store: InventoryStore) -> None:
    adjustment = Adjustment(new_id(), "TEA-0001", -5)
    await store.adjust(adjustment)
    for other in (replace(adjustment, delta=5), replace(adjustment, sku="TEA-0002")):
        with pytest.raises(RequestIdReused):
            await store.adjust(other)
    assert (await stock_of(store, "TEA-0001")).on_hand == 495


async def test_an_adjustment_cannot_remove_reserved_units(store: InventoryStore) -> None:
    await store.reserve(request_for(("TEA-0001", 3)))
    adjustment = Adjustment(new_id(), "TEA-0001", -498)
    with pytest.raises(AdjustmentBelowReserved) as failure:
        await store.adjust(adjustment)
    assert failure.value.fields == {"sku": "TEA-0001", "on_hand": "500", "reserved": "3", "delta": "-498"}
    assert (await store.adjust(replace(adjustment, delta=-497))).available == 0, "a rejected request may be retried"


async def test_an_unknown_sku_cannot_be_adjusted(store: InventoryStore) -> None:
    with pytest.raises(UnknownSku):
        await store.adjust(Adjustment(new_id(), "NO-SUCH", 5))


# Any sequence of calls


@dataclass
class Shelf:
    """The expected values of one stock, computed from the calls."""

    sku: str
    on_hand: int
    committed: int = 0
    held: dict[str, int] = field(default_factory=dict)
    sold: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    attempts: Counter[str] = field(default_factory=Counter)

    def agrees_with(self, stock: Stock) -> bool:
        return (stock.on_hand, stock.reserved) == (self.on_hand, sum(self.held.values())) and stock.available >= 0

    def end(self, request_id: str, *, committed: bool = False) -> None:
        quantity = self.held.pop(request_id)
        (self.sold if committed else self.ended).add(request_id)
        if committed:
            self.on_hand -= quantity
            self.committed += quantity


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "again", "undo", "commit", "release", "expire", "purge", "adjust"]),
        st.integers(0, 1),
        st.integers(1, 6),
    ),
    min_size=10,
    max_size=20,
)


@pytest.mark.timeout(120)
@given(steps=STEPS)
@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a failure is short enough to read, and shrinking takes long
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_no_sequence_of_calls_oversells_or_leaks(
    steps: list[tuple[str, int, int]], store: InventoryStore, database: Database, clock: FakeClock
) -> None:
    shelf = Shelf(sku=f"HYP-{new_id()}", on_hand=10)
    row = {"sku": shelf.sku, "title": "", "category": "", "on_hand": 10, "reserved": 0, "version": 1}
    await database.write(lambda connection: connection.execute(tables.stock.insert().values(row)))
    orders = [request_for((shelf.sku, quantity)) for quantity in (4, 7)]
    brought = 10
    for action, number, units in steps:
        order = orders[number]
        match action:
            case "adjust":
                delta = units if units > 3 else -units
                if await succeeds(store.adjust(Adjustment(new_id(), shelf.sku, delta)), AdjustmentBelowReserved):
                    shelf.on_hand += delta
                    brought += delta
            case "expire":
                clock.advance(HOLD)
                await store.sweep()
                for request_id in list(shelf.held):
                    shelf.end(request_id)
            case "purge":
                while await store.purge(clock.now + HOLD + MOMENT):
                    continue
                for request_id in shelf.ended:
                    del shelf.attempts[request_id]
                shelf.ended.clear()
            case _:
                await act(action, order, shelf, store)
        stock = await stock_of(store, shelf.sku)
        assert shelf.agrees_with(stock), (action, stock, shelf)
        assert stock.on_hand + shelf.committed == brought


async def act(action: str, order: ReservationRequest, shelf: Shelf, store: InventoryStore) -> None:
    """Makes one call about one order and one entry in the books."""
    held = order.request_id in shelf.held
    match action:
        case "reserve" | "again":
            attempt = another_attempt(order) if action == "again" else order
            final = order.request_id in shelf.ended | shelf.sold
            if await succeeds(store.reserve(attempt), InsufficientStock) and not final:
                shelf.held[order.request_id] = order.lines[0].quantity
                shelf.attempts[order.request_id] += action == "again"
        case "undo":
            shared = shelf.attempts[order.request_id] > 0
            undone = await store.undo(order.request_id, order.attempt_id)
            assert undone == (held and not shared)
            if undone:
                del shelf.held[order.request_id]
        case "commit" | "release":
            ends = store.commit if action == "commit" else store.release
            await succeeds(
                ends(order.request_id),
                UnknownReservation,
                ReservationCommitted,
                ReservationReleased,
                ReservationExpired,
            )
            if held:
                shelf.end(order.request_id, committed=action == "commit")


async def succeeds(call: Awaitable[object], *refusals: type[ServiceError]) -> bool:
    try:
        await call
    except refusals:
        return False
    return True
