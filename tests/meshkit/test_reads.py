"""Database.fetch on SQLite and PostgreSQL: it does what Database.read does, for less."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import StatusCode
from sqlalchemy import bindparam, column, func, literal_column, select, table, type_coerce

from inventory.app import MIGRATIONS
from inventory.domain import DatabaseUnavailable
from inventory.seed import seed
from inventory.tables import stock
from meshkit.database import check_database, open_database
from meshkit.database.columns import UtcMicros
from meshkit.deadline import budget, remaining
from meshkit.telemetry.prometheus import MetricsPage
from meshkit.testing import SpanCapture
from tests.inventory.opened import prepare_database
from tests.meshkit.scrape import parse, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan
    from sqlalchemy.sql.selectable import TypedReturnsRows

    from meshkit.database import Database

SKUS = select(stock.c.sku).where(stock.c.sku.in_(bindparam("skus", expanding=True))).order_by(stock.c.sku)
MISSING = select(table("nowhere", column("word")).c.word)
_NUMBERS = select(literal_column("1").label("n")).cte("numbers", recursive=True)
_ALL = _NUMBERS.union_all(select(_NUMBERS.c.n + 1))
ENDLESS = {"sqlite": select(func.count()).select_from(_ALL), "postgresql": select(func.pg_sleep(60))}


@pytest.fixture
def capture() -> SpanCapture:
    return SpanCapture("inventory")


@pytest.fixture
async def database(database_url: str, capture: SpanCapture) -> AsyncIterator[Database]:
    async with prepare_database(database_url, capture) as database:
        yield database


def endless(database_url: str) -> TypedReturnsRows[Any]:
    return ENDLESS[database_url.partition(":")[0]]


async def trace(
    database: Database, capture: SpanCapture, statement: TypedReturnsRows[Any], parameters: Mapping[str, Any]
) -> list[ReadableSpan]:
    """The spans of a statement, once by `fetch` and once by `read`, each inside a span."""
    capture.exporter.clear()
    tracer = capture.telemetry.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("request"):
        await asyncio.gather(database.fetch(statement, parameters), return_exceptions=True)
    with tracer.start_as_current_span("request"):
        async with database.read() as connection:
            await asyncio.gather(connection.execute(statement, parameters), return_exceptions=True)
    return capture.spans()


@pytest.mark.parametrize(
    ("statement", "parameters"), [(SKUS, {"skus": ["TEA-0001", "TEA-0002"]}), (MISSING, {})], ids=["found", "error"]
)
async def test_its_span_is_that_of_a_read(
    database: Database, capture: SpanCapture, statement: TypedReturnsRows[Any], parameters: Mapping[str, Any]
) -> None:
    fetched, request, read, _ = await trace(database, capture, statement, parameters)
    for name in ("name", "kind", "attributes", "events", "links", "instrumentation_scope"):
        assert getattr(fetched, name) == getattr(read, name)
    assert fetched.status.status_code is read.status.status_code
    assert fetched.parent is not None
    assert fetched.parent.span_id == request.context.span_id
    assert request.start_time <= fetched.start_time <= fetched.end_time <= request.end_time  # type: ignore[operator]


async def test_lists_may_have_any_length(database: Database) -> None:
    for skus in (["TEA-0001"], ["TEA-0001", "TEA-0002"], [], ["TEA-0002"]):
        assert [row[0] for row in await database.fetch(SKUS, {"skus": skus})] == skus


async def test_parameters_and_columns_have_their_types(database: Database) -> None:
    moment = datetime(2026, 2, 3, 4, 5, 6, 789, UTC)
    statement = select(
        type_coerce(bindparam("moment", type_=UtcMicros), UtcMicros).label("moment"),
        type_coerce(moment, UtcMicros).label("constant"),
        (stock.c.version + bindparam("more")).label("sum"),
    ).where(stock.c.sku == bindparam("sku"))
    rows = await database.fetch(statement, {"moment": moment, "more": 2, "sku": "TEA-0001"})
    assert [tuple(row) for row in rows] == [(moment, moment, 3)]


async def test_a_bug_in_a_statement_is_not_an_outage(database: Database) -> None:
    with pytest.raises(Exception, match="nowhere") as failure:
        await database.fetch(MISSING, {})
    assert not isinstance(failure.value, DatabaseUnavailable)
    assert len(await database.fetch(SKUS, {"skus": ["TEA-0001"]})) == 1


async def test_it_fails_before_the_database_is_prepared(database_url: str, capture: SpanCapture) -> None:
    telemetry = capture.telemetry
    tracer = telemetry.tracer_provider.get_tracer("test")
    async with open_database(database_url, DatabaseUnavailable, tracer, telemetry.meter) as database:
        with pytest.raises(DatabaseUnavailable) as failure:
            await database.fetch(SKUS, {"skus": []})
    assert failure.value.retry_after == 1.0


async def test_cancelled_reads_are_interrupted_and_their_spans_are_errors(
    database: Database, database_url: str, capture: SpanCapture
) -> None:
    with capture.telemetry.tracer_provider.get_tracer("test").start_as_current_span("request"):
        reading = [asyncio.create_task(database.fetch(endless(database_url), {})) for _ in range(4)]
        await asyncio.wait(reading, timeout=0.3)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    assert all(task.cancelled() for task in reading)
    spans = [span for span in capture.spans() if span.name.startswith("SELECT")]
    assert spans
    assert {(span.status.status_code, (span.attributes or {})["error.type"]) for span in spans} == {
        (StatusCode.ERROR, "asyncio.exceptions.CancelledError")
    }
    async with asyncio.timeout(10):
        assert len(await database.fetch(SKUS, {"skus": ["TEA-0001"]})) == 1


async def test_a_read_waits_for_busy_connections_for_half_of_its_budget(database: Database, database_url: str) -> None:
    reading = [asyncio.create_task(database.fetch(endless(database_url), {})) for _ in range(5)]
    with budget(1.0):
        await asyncio.wait(reading, timeout=0.3)
        with pytest.raises(DatabaseUnavailable, match="busy"):
            await database.fetch(SKUS, {"skus": []})
        assert (remaining() or 0) > 0
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)


async def test_a_read_in_flight_ends_when_its_database_closes(tmp_path: Path, capture: SpanCapture) -> None:
    async with prepare_database(f"sqlite:///{tmp_path / 'some.db'}", capture) as database:
        reading = asyncio.create_task(database.fetch(ENDLESS["sqlite"], {}))
        await asyncio.wait({reading}, timeout=0.05)
    with pytest.raises(DatabaseUnavailable):
        await reading


async def test_its_connections_count_as_readers(database_url: str) -> None:
    page = MetricsPage()
    telemetry = SpanCapture("inventory", page=page).telemetry
    tracer = telemetry.tracer_provider.get_tracer("test")
    async with open_database(database_url, DatabaseUnavailable, tracer, telemetry.meter) as database:
        await check_database(database, MIGRATIONS, seed)
        reading = asyncio.create_task(database.fetch(endless(database_url), {}))
        await asyncio.wait({reading}, timeout=0.1)
        found = parse(page.render("", "")[1].decode())
        readers = {"db_client_connection_pool_name": "readers", "db_client_connection_state": "used"}
        assert value(found, "db_client_connection_count", **readers) == 1
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
