"""Which quotes are listed, kept and deleted, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text, update

from pricing import quoting
from pricing.domain import State
from pricing.tables import quotes
from tests.databases import Hold
from tests.pricing.opened import prepare_database, store_on
from tests.pricing.placed import DAY, NOW, new_id, order_of, reach, rows, settlement_of, undo

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Select

    from meshkit.database.database import Database
    from meshkit.testing import FakeClock, SpanCapture
    from pricing.store import PriceStore

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]  # the first one starts PostgreSQL

ON_POSTGRESQL = pytest.mark.parametrize("shared_url", ["postgresql"], indirect=True)


async def place(store: PriceStore, state: State = State.OPEN) -> str:
    order = order_of()
    await reach(state, store, order)
    return order.request_id


# ListUnsettledQuotes


async def test_only_old_quotes_that_are_not_committed_are_listed(store: PriceStore, clock: FakeClock) -> None:
    old = [await place(store, state) for state in State]
    clock.advance(DAY)
    await place(store)
    assert await store.unsettled_quotes(NOW, "", 100) == ([], "")
    assert await store.unsettled_quotes(NOW + DAY, "", 100) == (sorted(old[:2]), "")


async def test_the_pages_list_every_quote_once_by_id(store: PriceStore) -> None:
    placed = sorted([await place(store) for _ in range(7)])
    found: list[str] = []
    after, pages = "", 0
    while after or not pages:
        ids, after = await store.unsettled_quotes(NOW + DAY, after, 3)
        found, pages = found + ids, pages + 1
    assert (found, pages) == (placed, 3)


async def test_a_listing_reads_the_index_alone(store: PriceStore, database: Database) -> None:
    """Otherwise it reads the quotes of all orders that were ever committed."""
    await add_committed_quotes(database, 2000)
    await place(store)
    plan = await plan_of(quoting.UNSETTLED_PAGE.params(before=NOW + DAY, after=new_id(), size=100), database)
    assert "COVERING INDEX unsettled_quotes" in plan or "Index Only Scan using unsettled_quotes" in plan
    assert "Sort" not in plan
    assert "ORDER BY" not in plan


async def add_committed_quotes(database: Database, count: int) -> None:
    row = {"fingerprint": "", "currency": "EUR", "total_minor": 1, "state": State.COMMITTED}
    times = {"create_time": NOW, "last_attempt_time": NOW}
    many = [{"quote_id": new_id(), **row, **times} for _ in range(count)]
    await database.write(lambda connection: connection.execute(quotes.insert(), many))


async def plan_of(query: Select[str], database: Database) -> str:
    async with database.read() as connection:
        await connection.execute(text("ANALYZE"))
        explain = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        statement = explain + str(query.compile(connection.engine, compile_kwargs={"literal_binds": True}))
        return "\n".join(str(row) for row in await connection.exec_driver_sql(statement))


# SettleQuotes


async def test_a_settlement_keeps_deletes_and_leaves_quotes(
    store: PriceStore, database: Database, clock: FakeClock
) -> None:
    committed, finished, orphaned, other = [[await place(store) for _ in range(2)] for _ in range(4)]
    clock.advance(DAY)
    settlement = settlement_of(committed=committed, finished=finished, orphaned=orphaned, create_time_before=NOW + DAY)
    assert await store.settle_quotes(settlement) == 4
    assert [(await store.get_quote(id_)).state for id_ in committed + other] == [State.COMMITTED] * 2 + [State.OPEN] * 2
    assert await rows(database) == [4, 8, 2]
    assert await store.settle_quotes(settlement) == 0
    assert await rows(database) == [4, 8, 2]


@pytest.mark.parametrize("state", [State.OPEN, State.CONFIRMED])
async def test_a_finished_or_unused_quote_is_deleted_even_if_confirmed(
    store: PriceStore, database: Database, clock: FakeClock, state: State
) -> None:
    finished, orphaned = await place(store, state), await place(store, state)
    settlement = settlement_of(finished=[finished], orphaned=[orphaned], create_time_before=NOW + DAY)
    clock.advance(DAY)
    assert await store.settle_quotes(settlement) == 2
    assert await rows(database) == [0, 0, 0]


async def test_a_quote_created_after_the_listing_is_not_deleted(store: PriceStore, clock: FakeClock) -> None:
    """A key was used again after another process had purged its order."""
    clock.advance(DAY)
    placed = await place(store)
    assert await store.settle_quotes(settlement_of(finished=[placed], create_time_before=NOW + DAY)) == 0
    assert await store.settle_quotes(settlement_of(finished=[placed], create_time_before=NOW + 2 * DAY)) == 1


async def test_a_committed_quote_is_never_deleted(store: PriceStore, clock: FakeClock) -> None:
    kept = await place(store, State.COMMITTED)
    clock.advance(DAY)
    for settlement in (settlement_of(finished=[kept]), settlement_of(orphaned=[kept], create_time_before=NOW + DAY)):
        assert await store.settle_quotes(settlement) == 0
    assert (await store.get_quote(kept)).state is State.COMMITTED


async def test_an_orphaned_quote_stays_while_an_attempt_may_still_use_it(store: PriceStore, clock: FakeClock) -> None:
    order = order_of()
    await store.create_quote(order)
    clock.advance(DAY)
    await store.create_quote(order)
    orphaned = settlement_of(orphaned=[order.request_id], create_time_before=NOW + DAY)
    clock.advance(quoting.IN_USE)
    assert await store.settle_quotes(orphaned) == 0
    clock.advance(timedelta(microseconds=1))
    assert await store.settle_quotes(settlement_of(orphaned=[order.request_id], create_time_before=NOW)) == 0
    assert (await store.get_quote(order.request_id)).state is State.OPEN
    assert await store.settle_quotes(orphaned) == 1


async def test_an_id_in_several_lists_belongs_to_the_first(store: PriceStore) -> None:
    placed = await place(store)
    settlement = settlement_of(committed=[placed], finished=[placed], orphaned=[placed], create_time_before=NOW + DAY)
    assert await store.settle_quotes(settlement) == 0
    assert (await store.get_quote(placed)).state is State.COMMITTED


async def test_unknown_quotes_are_not_an_error(store: PriceStore) -> None:
    unknown = settlement_of(
        committed=[new_id()], finished=[new_id()], orphaned=[new_id()], create_time_before=NOW + DAY
    )
    assert await store.settle_quotes(unknown) == 0
    assert await store.settle_quotes(settlement_of()) == 0


async def test_two_processes_settle_the_same_quotes_at_once(
    store: PriceStore, database: Database, shared_url: str, capture: SpanCapture, clock: FakeClock
) -> None:
    placed = [await place(store) for _ in range(60)]
    committed, finished = placed[:20], placed[20:]
    async with prepare_database(shared_url, capture) as other:
        stores = [store, store_on(other, capture, clock)]
        deleted = await asyncio.gather(
            *(
                stores[at % 2].settle_quotes(
                    settlement_of(committed=committed, finished=finished[at::2], create_time_before=NOW + DAY)
                )
                for at in range(10)
            )
        )
    assert sum(deleted) == 40
    assert await rows(database) == [20, 40, 0]
    assert not (await store.unsettled_quotes(NOW + DAY, "", 100))[0]


@ON_POSTGRESQL
async def test_a_settlement_skips_a_quote_that_another_transaction_has_locked(
    store: PriceStore, database: Database
) -> None:
    hold = Hold()

    def lock(quote_id: str, connection: Connection) -> None:
        connection.execute(select(quotes).where(quotes.c.quote_id == quote_id).with_for_update())
        hold(connection)

    skipped, deleted = await place(store), await place(store)
    locking = asyncio.create_task(database.write(lambda connection: lock(skipped, connection)))
    await hold.begun.wait()
    settlement = settlement_of(finished=[skipped, deleted], create_time_before=NOW + DAY)
    assert await store.settle_quotes(settlement) == 1
    hold.let_go.set()
    await locking
    assert await store.settle_quotes(settlement) == 1


async def test_a_settlement_with_nothing_to_do_takes_no_write_lock(store: PriceStore, database: Database) -> None:
    kept, young, hold = await place(store, State.COMMITTED), await place(store), Hold()

    def lock(connection: Connection) -> None:
        connection.execute(update(quotes).values(fingerprint="digest"))
        hold(connection)

    locking = asyncio.create_task(database.write(lock))
    await hold.begun.wait()
    assert await store.settle_quotes(settlement_of(committed=[kept], finished=[kept], orphaned=[young])) == 0
    hold.let_go.set()
    await locking


async def test_only_a_settlement_that_deletes_has_a_span_and_a_trace_of_its_own(
    store: PriceStore, capture: SpanCapture
) -> None:
    committed, finished = await place(store), await place(store)
    tracer = capture.telemetry.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("poll") as poll:
        await store.settle_quotes(settlement_of(committed=[committed]))
        assert not capture.spans("purge quotes")
        await store.settle_quotes(settlement_of(finished=[finished], create_time_before=NOW + DAY))
    (purge,) = capture.spans("purge quotes")
    assert purge.parent is None
    assert purge.context.trace_id != poll.get_span_context().trace_id
    assert dict(purge.attributes or {}) == {"pricing.deleted_quotes": 1}
    below = [span.name for span in capture.spans() if span.parent and span.parent.span_id == purge.context.span_id]
    assert below == ["DELETE quote_lines", "DELETE quotes"]


@pytest.mark.timeout(60)
async def test_created_and_undone_quotes_do_not_grow_the_file(
    tmp_path: Path, capture: SpanCapture, clock: FakeClock
) -> None:
    orders = [order_of() for _ in range(40)]

    async def pages(database: Database) -> int:
        async with database.read() as connection:
            return int((await connection.execute(text("PRAGMA page_count"))).scalar_one())

    async with prepare_database(f"sqlite:///{tmp_path / 'pricing.db'}", capture) as database:
        store, counts = store_on(database, capture, clock), []
        for _ in range(5):
            await asyncio.gather(*(store.create_quote(order) for order in orders))
            assert all(await asyncio.gather(*(undo(store, order) for order in orders)))
            counts.append(await pages(database))
        assert counts == [counts[0]] * 5
        assert await rows(database) == [0, 0, 0]
