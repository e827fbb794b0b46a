"""What the trace of a request shows of its database."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import DBAPIError

from inventory.tables import reservation_lines, stock
from meshkit.testing import SpanCapture
from tests.inventory.opened import prepare_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan
    from sqlalchemy import Connection

    from meshkit.database.database import Database

ROW = {"title": "Secret title", "category": "tea", "on_hand": 1, "reserved": 0, "version": 1}


@pytest.fixture
def capture() -> SpanCapture:
    return SpanCapture("inventory")


@pytest.fixture
async def database(database_url: str, capture: SpanCapture) -> AsyncIterator[Database]:
    async with prepare_database(database_url, capture) as database:
        yield database


@contextmanager
def request(capture: SpanCapture) -> Iterator[None]:
    with capture.telemetry.tracer_provider.get_tracer("test").start_as_current_span("request"):
        yield


def insert_rows(connection: Connection) -> None:
    connection.execute(stock.insert(), [{"sku": "NEW-1", **ROW}, {"sku": "NEW-2", **ROW}])
    connection.execute(stock.update().where(stock.c.sku == "NEW-1").values(on_hand=9))


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_a_write_shows_each_statement_from_begin_to_commit(
    database: Database, database_url: str, capture: SpanCapture
) -> None:
    name = (make_url(database_url).database or "").rpartition("/")[2]
    with request(capture):
        await database.write(insert_rows)
    *statements, parent = capture.spans()
    assert [span.name for span in statements] == [
        f"BEGIN {name}",
        "BATCH INSERT stock",
        "UPDATE stock",
        f"COMMIT {name}",
    ]
    assert {span.kind for span in statements} == {SpanKind.CLIENT}
    assert {span.parent.span_id for span in statements if span.parent} == {parent.context.span_id}
    assert {span.status.status_code for span in statements} == {StatusCode.UNSET}


async def test_a_statement_span_has_the_stable_attributes_of_the_conventions(
    database: Database, database_url: str, capture: SpanCapture
) -> None:
    url = make_url(database_url)
    with request(capture):
        await database.write(insert_rows)
    (insert,), (update,) = capture.spans("BATCH INSERT stock"), capture.spans("UPDATE stock")
    where = (
        {"db.system.name": "sqlite"}
        if url.get_backend_name() == "sqlite"
        else {"db.system.name": "postgresql", "server.address": url.host, "server.port": url.port}
    )
    common = {**where, "db.namespace": (url.database or "").rpartition("/")[2], "db.collection.name": "stock"}
    assert attributes(update) == {
        **common,
        "db.operation.name": "UPDATE",
        "db.query.text": attributes(update)["db.query.text"],
    }
    assert (
        attributes(insert).items()
        >= {
            **common,
            "db.operation.name": "BATCH INSERT",
            "db.operation.batch.size": 2,
        }.items()
    )


async def test_values_never_reach_a_span(database: Database, capture: SpanCapture) -> None:
    with request(capture):
        await database.write(insert_rows)
    span_text = " ".join(str(attributes(span)) for span in capture.spans())
    assert "UPDATE stock SET on_hand=" in span_text
    assert "NEW-1" not in span_text
    assert "Secret" not in span_text


async def test_the_span_of_a_query_of_two_tables_names_no_table(database: Database, capture: SpanCapture) -> None:
    with request(capture):
        async with database.read() as connection:
            await connection.execute(select(stock, reservation_lines.c.position).join(reservation_lines))
    span, _ = capture.spans()
    assert attributes(span)["db.operation.name"] == "SELECT"
    assert "db.collection.name" not in attributes(span)


async def test_there_are_no_spans_without_a_traced_request(database: Database, capture: SpanCapture) -> None:
    await database.write(insert_rows)
    await database.check()
    async with database.read() as connection:
        await connection.execute(select(stock))
    assert capture.spans() == []


async def test_a_failed_statement_is_an_error_and_its_rollback_has_a_span(
    database: Database, database_url: str, capture: SpanCapture
) -> None:
    def oversell(connection: Connection) -> None:
        connection.execute(stock.update().values(reserved=-1))

    with request(capture), pytest.raises(DBAPIError):
        await database.write(oversell)
    code = "SQLITE_CONSTRAINT_CHECK" if database_url.startswith("sqlite") else "23514"
    (failed,) = capture.spans("UPDATE stock")
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(failed)["db.response.status_code"] == code
    assert attributes(failed)["error.type"] == code
    assert capture.spans()[-2].name.startswith("ROLLBACK ")


async def test_a_cancelled_statement_ends_its_span_as_an_error(database: Database, capture: SpanCapture) -> None:
    async def read_slowly() -> None:
        async with database.read() as connection:
            await connection.execute(text(SLOW[connection.dialect.name]))

    with request(capture):
        reading = asyncio.create_task(read_slowly())
        await asyncio.wait({reading}, timeout=0.1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    _, span = capture.spans()
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "asyncio.exceptions.CancelledError"


async def test_waiting_for_the_lock_of_another_process_is_one_span(tmp_path: Path, capture: SpanCapture) -> None:
    path = tmp_path / "locked.db"
    async with prepare_database(f"sqlite:///{path}", capture) as database:
        with request(capture), closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(database.write(insert_rows))
            await asyncio.wait({writing}, timeout=0.1)
            other.execute("COMMIT")
            await writing
    waited, insert = capture.spans()[:2]
    assert waited.name == "BEGIN locked.db"
    assert attributes(waited)["db.query.text"] == "BEGIN IMMEDIATE"
    assert waited.status.status_code is StatusCode.UNSET
    assert waited.end_time is not None
    assert insert.start_time is not None
    assert waited.end_time <= insert.start_time


SLOW = {
    "postgresql": "SELECT pg_sleep(5)",
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000000) "
    "SELECT count(*) FROM numbers",
}
