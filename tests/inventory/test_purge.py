"""The purge of released and expired reservations, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text

from inventory import expiring, reserving, tables
from inventory.domain import Line, State, UnknownReservation
from inventory.expiring import PURGE_BATCH
from tests.databases import Hold
from tests.inventory.opened import HOLD, another_attempt, count, prepare_database, request_for, stock_of, store_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from inventory.domain import ReservationRequest
    from inventory.store import InventoryStore
    from meshkit.database import Database
    from meshkit.testing import FakeClock, SpanCapture

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]  # the first one starts PostgreSQL

MOMENT = timedelta(microseconds=1)
ON_POSTGRESQL = pytest.mark.parametrize("shared_url", ["postgresql"], indirect=True)
FAR = datetime(2100, 1, 1, tzinfo=UTC)
TABLES_OF_A_RESERVATION = ("reservations", "reservation_lines", "reservation_attempts")


async def released(store: InventoryStore) -> ReservationRequest:
    request = request_for(("TEA-0001", 3), ("TEA-0002", 1))
    await store.reserve(request)
    await store.release(request.request_id)
    return request


async def insert_rows(database: Database, expire_times: dict[datetime, State]) -> None:
    """Stores a reservation for each time, without lines; its id says when it expires."""
    rows = [
        {
            "reservation_id": expire_time.isoformat(),
            "state": state,
            "fingerprint": "",
            "create_time": expire_time,
            "expire_time": expire_time,
        }
        for expire_time, state in expire_times.items()
    ]
    await database.write(lambda connection: connection.execute(tables.reservations.insert(), rows))


def alternating(start: datetime, number: int, states: tuple[State, ...]) -> dict[datetime, State]:
    return {start + index * MOMENT: states[index % len(states)] for index in range(number)}


async def ids_of(database: Database) -> list[str]:
    async with database.read() as connection:
        return sorted(await connection.scalars(select(tables.reservations.c.reservation_id)))


async def purge_all(store: InventoryStore, before: datetime) -> list[int]:
    counts = []
    while purged := await store.purge(before):
        counts.append(purged)
    return counts


@asynccontextmanager
async def holding(database: Database, work: Callable[[Connection], object]) -> AsyncIterator[None]:
    """Within the block a transaction has done its work and is not committed."""
    hold = Hold()

    def work_and_wait(connection: Connection) -> None:
        work(connection)
        hold(connection)

    write = asyncio.create_task(database.write(work_and_wait))
    await asyncio.wait({write, asyncio.create_task(hold.begun.wait())}, return_when="FIRST_COMPLETED")
    try:
        yield
    finally:
        hold.let_go.set()
        await write


async def until_it_waits_for_a_lock(database: Database, write: asyncio.Task[Any]) -> None:
    """Waits until the only other write in flight waits for a lock of PostgreSQL, or has ended."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with database.read() as connection:
        while not write.done() and not await connection.scalar(waiting):
            await asyncio.sleep(0)


async def test_a_purge_deletes_released_and_expired_reservations_and_no_others(
    store: InventoryStore, clock: FakeClock
) -> None:
    gone, swept, committed = await released(store), request_for(("TEA-0001", 1)), request_for(("TEA-0001", 1))
    for request in (swept, committed):
        await store.reserve(request)
    await store.commit(committed.request_id)
    clock.advance(HOLD)
    await store.sweep()
    overdue = request_for(("TEA-0001", 1))
    await store.reserve(overdue)
    clock.advance(10 * HOLD)
    reserved = request_for(("TEA-0001", 1))
    await store.reserve(reserved)
    assert await store.purge(clock.now + 10 * HOLD) == 2
    requests = [gone, swept, committed, overdue, reserved]
    found = await store.reservations([request.request_id for request in requests])
    assert {id_: reservation.state for id_, reservation in found.items()} == {
        committed.request_id: State.COMMITTED,
        overdue.request_id: State.EXPIRED,
        reserved.request_id: State.RESERVED,
    }
    assert (await stock_of(store, "TEA-0001")).reserved == 2, "of the overdue and the reserved one"


async def test_a_purge_deletes_only_what_expired_before_its_time(store: InventoryStore, clock: FakeClock) -> None:
    await released(store)
    expire_time = clock.now + HOLD
    assert await store.purge(expire_time) == 0
    assert await store.purge(expire_time + MOMENT) == 1
    assert await store.purge(expire_time + MOMENT) == 0


async def test_a_purge_leaves_no_row_of_a_reservation(store: InventoryStore, database: Database) -> None:
    request = await released(store)
    attempt = {"reservation_id": request.request_id, "attempt_id": request.attempt_id}
    await database.write(lambda connection: connection.execute(tables.reservation_attempts.insert(), attempt))
    assert [await count(database, table) for table in TABLES_OF_A_RESERVATION] == [1, 2, 1]
    assert await store.purge(FAR) == 1
    assert [await count(database, table) for table in TABLES_OF_A_RESERVATION] == [0, 0, 0]


async def test_a_purged_id_is_unknown_and_free_for_any_request(store: InventoryStore) -> None:
    request = await released(store)
    await store.purge(FAR)
    for call in (store.reservation, store.commit, store.release):
        with pytest.raises(UnknownReservation):
            await call(request.request_id)
    assert not await store.undo(request.request_id, request.attempt_id)
    other = replace(request, fingerprint="other", lines=(Line("TEA-0003", 1),))
    made = await store.reserve(other)
    assert (made.state, made.fingerprint, made.lines) == (State.RESERVED, "other", other.lines)


async def test_a_purge_is_limited_and_deletes_the_oldest_of_both_states(
    store: InventoryStore, database: Database, clock: FakeClock
) -> None:
    rows = alternating(clock.now, 2 * PURGE_BATCH, (State.RELEASED, State.EXPIRED, State.EXPIRED))
    await insert_rows(database, dict(reversed(rows.items())))
    assert await store.purge(FAR) == PURGE_BATCH
    assert await ids_of(database) == [time.isoformat() for time in rows][PURGE_BATCH:]
    assert await purge_all(store, FAR) == [PURGE_BATCH]


async def test_concurrent_purges_of_two_processes_count_each_reservation_once(
    shared_url: str, store: InventoryStore, database: Database, clock: FakeClock, capture: SpanCapture
) -> None:
    await insert_rows(database, alternating(clock.now, 5 * PURGE_BATCH + 7, (State.RELEASED, State.EXPIRED)))
    async with prepare_database(shared_url, capture) as other:
        second = store_on(other, capture, clock)
        counts = await asyncio.gather(*(purge_all(each, FAR) for each in [store, second] * 2))
    assert sum(map(sum, counts)) == 5 * PURGE_BATCH + 7
    assert await ids_of(database) == []


async def test_a_purge_takes_no_lock_when_there_is_nothing_to_delete(
    store: InventoryStore, database: Database, shared_url: str, capture: SpanCapture
) -> None:
    def lock_table(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE reservations IN EXCLUSIVE MODE"))

    async with prepare_database(shared_url, capture) as other, holding(other, lock_table):
        assert await store.purge(FAR) == 0


async def test_a_replay_that_races_with_a_purge_gets_the_old_reservation_or_makes_a_new_one(
    shared_url: str, store: InventoryStore, clock: FakeClock, capture: SpanCapture
) -> None:
    async with prepare_database(shared_url, capture) as other:
        second = store_on(other, capture, clock)
        for turn in range(10):
            request = await released(store)
            if turn % 2:
                replayed, _ = await asyncio.gather(store.reserve(another_attempt(request)), second.purge(FAR))
            else:
                _, replayed = await asyncio.gather(second.purge(FAR), store.reserve(another_attempt(request)))
            assert replayed.state in {State.RELEASED, State.RESERVED}
            kept = await store.reservations([request.request_id])
            assert list(kept.values()) == [replayed] or (not kept and replayed.state is State.RELEASED)
            assert (await stock_of(store, "TEA-0001")).reserved == (3 if replayed.state is State.RESERVED else 0)
            if kept:
                await store.release(request.request_id)


@ON_POSTGRESQL
async def test_a_replay_waits_for_the_purge_of_its_reservation_and_makes_a_new_one(
    store: InventoryStore, database: Database, capture: SpanCapture
) -> None:
    tracer = capture.telemetry.tracer_provider.get_tracer("inventory")
    request = await released(store)
    async with holding(database, partial(expiring.purge, FAR, tracer)):
        replay = asyncio.create_task(store.reserve(replace(another_attempt(request), fingerprint="other")))
        await until_it_waits_for_a_lock(database, replay)
    assert (await replay).state is State.RESERVED


@ON_POSTGRESQL
async def test_a_purge_skips_a_reservation_that_a_replay_reads(
    store: InventoryStore, database: Database, clock: FakeClock
) -> None:
    request, other = await released(store), await released(store)
    async with holding(database, partial(reserving.reserve, another_attempt(request), HOLD, clock)):
        assert await store.purge(FAR) == 1
        assert (await store.reservations([request.request_id, other.request_id])).keys() == {request.request_id}
    assert await store.purge(FAR) == 1


async def test_a_purge_is_traced_only_when_it_deletes_something(store: InventoryStore, capture: SpanCapture) -> None:
    assert await store.purge(FAR) == 0
    assert capture.spans() == []
    await released(store)
    assert await store.purge(FAR) == 1
    (purge,) = capture.spans("purge reservations")
    assert purge.parent is None
    assert dict(purge.attributes or {}) == {"inventory.purged_reservations": 1}
    (statement,) = [span for span in capture.spans() if span is not purge]
    assert statement.name == "DELETE reservations"
    assert statement.parent == purge.context


async def test_a_purge_finds_its_reservations_by_the_index(database: Database, clock: FakeClock) -> None:
    await insert_rows(database, alternating(clock.now, 5000, tuple(State)))
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}

    def plan(connection: Connection) -> list[str]:
        connection.execute(text("ANALYZE"))
        query = expiring.select_old(FAR, PURGE_BATCH, lock=True)
        compiled = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
        rows = connection.execute(text(f"{explain[connection.dialect.name]} {compiled}"))
        return [str(row[-1]) for row in rows]

    steps = await database.write(plan)
    assert len([step for step in steps if "reservations_by_expiry" in step]) == 2, steps
    assert not [step for step in steps if "Seq Scan on reservations" in step or "SCAN reservations" in step], steps


@pytest.mark.timeout(120)
async def test_purged_reservations_do_not_grow_a_sqlite_file(
    tmp_path: Path, capture: SpanCapture, clock: FakeClock
) -> None:
    requests = [request_for(("TEA-0001", 1), ("TEA-0002", 1)) for _ in range(20)]
    sizes = []
    async with prepare_database(f"sqlite:///{tmp_path / 'test.db'}", capture) as database:
        store = store_on(database, capture, clock)
        for _ in range(5):
            for request in requests:
                await store.reserve(request)
                await store.release(request.request_id)
            await purge_all(store, FAR)
            async with database.read() as connection:
                sizes.append(await connection.scalar(text("PRAGMA page_count")))
    assert sizes == sizes[:1] * 5
