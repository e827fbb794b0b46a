"""The schema, and what a migration makes of the quotes of earlier releases, on SQLite and PostgreSQL."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from meshkit.database import open_database
from pricing.app import MIGRATIONS
from pricing.domain import DatabaseUnavailable, Line, Money, Quote, QuoteLine, State
from pricing.seed import seed
from pricing.tables import metadata
from tests.pricing.opened import prepare_database, store_on
from tests.pricing.placed import DAY, NOW, new_id, order_of, rows, settlement_of, undo

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from meshkit.database.database import Database
    from meshkit.testing import FakeClock, SpanCapture

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]  # the first one starts PostgreSQL

LINE = QuoteLine(Line("TEA-0001", 3), Money("JPY", 2636), Money("JPY", 7908))


@pytest.fixture
def first_release(tmp_path: Path) -> Path:
    """A directory of the first revision only."""
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    shutil.copy(MIGRATIONS / "versions" / "0001_prices_and_quotes.py", versions)
    return versions.parent


async def test_the_migrations_create_the_tables_of_the_code(database: Database) -> None:
    async with database.read() as connection:
        context = await connection.run_sync(MigrationContext.configure)
        assert await connection.run_sync(lambda _: compare_metadata(context, metadata)) == []


async def test_quotes_of_the_first_release_stay_readable_and_cannot_be_undone(
    database_url: str, first_release: Path, capture: SpanCapture, clock: FakeClock
) -> None:
    orders = [order_of(("TEA-0001", 3), currency="JPY") for _ in range(3)]
    ids = [order.request_id for order in orders]
    await store_in_first_release(ids, database_url, first_release, capture)
    async with prepare_database(database_url, capture) as database:
        store, order = store_on(database, capture, clock), orders[0]
        kept = Quote(order.request_id, "digest", (LINE,), LINE.total, NOW - DAY, State.OPEN)
        assert await store.get_quote(order.request_id) == kept
        assert await store.create_quote(order) == kept
        assert not await undo(store, order)
        assert not await undo(store, replace(order, attempt_id=new_id()))
        assert await rows(database) == [3, 3, 3]
        assert await store.unsettled_quotes(NOW, "", 100) == (sorted(ids), "")
        settlement = settlement_of(committed=ids[:1], orphaned=ids[1:2], create_time_before=NOW - DAY)
        assert await store.settle_quotes(settlement) == 0, "the last attempt at an orphaned one was its creation"
        assert await store.settle_quotes(settlement_of(finished=ids[2:], create_time_before=NOW)) == 1
        assert (await store.get_quote(ids[0])).state is State.COMMITTED
        assert await store.confirm_quote(ids[1]) == replace(kept, quote_id=ids[1], state=State.CONFIRMED)


async def test_an_unknown_attempt_does_not_undo_a_quote_that_the_previous_release_inserts(
    database: Database, capture: SpanCapture, clock: FakeClock
) -> None:
    """In a rollout its processes still run after the migration. They know no states and no attempts."""
    store, order = store_on(database, capture, clock), order_of(("TEA-0001", 3), currency="JPY")
    await database.write(partial(insert_quotes, [order.request_id]))
    assert not await undo(store, order)
    assert (await store.get_quote(order.request_id)).state is State.OPEN
    assert await store.unsettled_quotes(NOW, "", 100) == ([order.request_id], "")


async def test_an_undo_after_a_join_keeps_a_quote_that_the_previous_release_returned(
    database: Database, capture: SpanCapture, clock: FakeClock
) -> None:
    """That release returned the quote to an attempt that it did not store."""
    store, order = store_on(database, capture, clock), order_of(("TEA-0001", 3), currency="JPY")
    await database.write(partial(insert_quotes, [order.request_id]))
    joined = await store.create_quote(order)
    assert not await undo(store, order)
    assert await store.get_quote(order.request_id) == joined


def insert_quotes(ids: list[str], connection: Connection) -> None:
    """Inserts quotes of one line as the first release does."""
    quotes = text(
        "INSERT INTO quotes (quote_id, fingerprint, currency, total_minor, create_time)"
        " VALUES (:id, 'digest', 'JPY', 7908, :time)"
    )
    lines = text("INSERT INTO quote_lines VALUES (:id, 0, 'TEA-0001', 3, 2636, 7908)")
    time = int((NOW - DAY).timestamp()) * 1_000_000
    connection.execute(quotes, [{"id": id_, "time": time} for id_ in ids])
    connection.execute(lines, [{"id": id_} for id_ in ids])


async def store_in_first_release(ids: list[str], url: str, migrations: Path, capture: SpanCapture) -> None:
    telemetry = capture.telemetry
    tracer = telemetry.tracer_provider.get_tracer("pricing")
    async with open_database(url, DatabaseUnavailable, tracer, telemetry.meter) as database:
        await database.prepare(migrations, seed)
        await database.write(partial(insert_quotes, ids))
