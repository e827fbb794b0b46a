"""meshkit.database.database on SQLite files and PostgreSQL, with a table of notes."""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import AsyncExitStack, closing, suppress
from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import NoOpTracer
from sqlalchemy import func, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.util import await_only

from meshkit.database.columns import insert_once
from meshkit.database.database import Database
from meshkit.database.migrations import UnknownRevision
from meshkit.deadline import budget, remaining
from meshkit.errors import describe
from tests.meshkit.notes import (
    BlockedWrite,
    EndlessWrite,
    NotesUnavailable,
    notes,
    open_notes,
    seed,
    words,
    write_words,
)
from tests.private_postgres import PrivatePostgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection, Table, TextClause
    from sqlalchemy.ext.asyncio import AsyncConnection

NEWER_REVISION = """
from alembic import op
from sqlalchemy import Column, Integer
revision = "0002_stars"
down_revision = "0001_notes"
def upgrade():
    op.add_column("notes", Column("stars", Integer))
"""


@pytest.fixture
async def database(database_url: str, migrations: Path) -> AsyncIterator[Database]:
    async with open_notes(database_url) as database:
        await database.prepare(migrations, seed)
        yield database


async def test_a_write_is_committed_when_its_work_returns(database: Database) -> None:
    await database.write(write_words)
    assert await words(database) == "written"


async def test_a_write_is_rolled_back_when_its_work_raises(database: Database) -> None:
    def fail(connection: Connection) -> None:
        write_words(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(fail)
    assert await words(database) == "one"


async def test_a_write_is_invisible_to_others_before_its_commit(database: Database) -> None:
    held = BlockedWrite()
    writing = asyncio.create_task(database.write(held))
    await held.begun.wait()
    assert await words(database) == "one"
    held.let_go.set()
    await writing
    assert await words(database) == "held"


async def test_a_cancelled_write_that_has_started_finishes(database: Database) -> None:
    held = BlockedWrite()
    writing = asyncio.create_task(database.write(held))
    await held.begun.wait()
    writing.cancel()
    asyncio.get_running_loop().call_soon(held.let_go.set)
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await words(database) == "held"


async def test_a_cancelled_write_that_never_finishes_is_rolled_back(database: Database) -> None:
    endless = EndlessWrite()
    writing = asyncio.create_task(database.write(endless))
    await endless.begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await words(database) == "one"
    await database.write(write_words)
    assert await words(database) == "written"


async def test_a_write_cancelled_twice_is_rolled_back_at_once(database: Database) -> None:
    endless = EndlessWrite()
    writing = asyncio.create_task(database.write(endless))
    await endless.begun.wait()
    writing.cancel()
    asyncio.get_running_loop().call_later(0.05, writing.cancel)
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await words(database) == "one"
    await database.write(write_words)
    assert await words(database) == "written"


async def test_a_write_cancelled_while_it_queues_never_starts(database: Database, database_url: str) -> None:
    in_the_way = [BlockedWrite(note) for note in range(1, 6)]
    writing = [asyncio.create_task(database.write(held)) for held in in_the_way]
    for held in in_the_way[: 1 if database_url.startswith("sqlite") else 5]:
        await held.begun.wait()
    waiting = asyncio.create_task(database.write(lambda connection: write_words(connection, "too late", 2)))
    await asyncio.wait({waiting}, timeout=0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for held in in_the_way:
        held.let_go.set()
    await asyncio.gather(*writing)
    assert await words(database, note=2) == "held"


async def test_cancelled_reads_leave_clean_connections(database: Database) -> None:
    async def read_slowly() -> None:
        async with database.read() as connection:
            await connection.execute(slow_query(connection))

    reading = [asyncio.create_task(read_slowly()) for _ in range(20)]
    await asyncio.wait(reading, timeout=0.1)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    assert await words(database) == "one"
    await database.write(write_words)
    assert await words(database) == "written"


async def test_reads_cancelled_while_they_connect_cause_no_warnings(
    database: Database, database_url: str, migrations: Path
) -> None:
    for turns in range(30):
        async with open_notes(database_url) as fresh:
            await fresh.prepare(migrations, seed)
            reading = [asyncio.create_task(words(fresh)) for _ in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
    assert await words(database) == "one"


async def test_reads_continue_while_all_writers_wait(database: Database) -> None:
    in_the_way = [BlockedWrite() for _ in range(20)]
    writing = [asyncio.create_task(database.write(held)) for held in in_the_way]
    await asyncio.wait([asyncio.create_task(held.begun.wait()) for held in in_the_way], return_when="FIRST_COMPLETED")
    assert await asyncio.gather(*(words(database) for _ in range(20))) == ["one"] * 20
    for held in in_the_way:
        held.let_go.set()
    await asyncio.gather(*writing)


async def test_a_check_passes_while_all_readers_and_writers_are_busy(database_url: str, migrations: Path) -> None:
    async with open_notes(database_url, patience=1.0) as database, AsyncExitStack() as busy:
        await database.prepare(migrations, seed)
        with pytest.raises(NotesUnavailable, match="busy"):
            while True:
                await busy.enter_async_context(database.read())
        held = BlockedWrite()
        writing = asyncio.create_task(database.write(held))
        await held.begun.wait()
        await database.check()
        held.let_go.set()
        await writing


@pytest.mark.timeout(120)
async def test_two_hundred_concurrent_writes_are_all_committed(database_url: str, migrations: Path) -> None:
    def append(connection: Connection) -> None:
        current = select(notes.c.words).where(notes.c.id == 1).with_for_update()
        count = int(connection.scalar(current) or "0")
        write_words(connection, str(count + 1))

    async with open_notes(database_url, patience=120) as database:  # the last write waits for all others
        await database.prepare(migrations, seed)
        await database.write(lambda connection: write_words(connection, "0"))
        await asyncio.gather(*(database.write(append) for _ in range(200)))
        assert await words(database) == "200"


async def test_a_row_is_inserted_once_for_its_key(database: Database) -> None:
    def insert(connection: Connection) -> bool:
        return insert_once(connection, notes, id=3, words="three")

    assert sorted(await asyncio.gather(*(database.write(insert) for _ in range(5)))) == [False] * 4 + [True]


async def test_an_invalid_statement_is_not_reported_as_an_outage(database: Database) -> None:
    async with database.read() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT nothing FROM nowhere"))
    with pytest.raises(DBAPIError):
        await database.write(lambda connection: connection.execute(text("SELECT nothing FROM nowhere")))
    assert await words(database) == "one"


async def test_reads_and_writes_fail_before_the_database_is_prepared(database_url: str) -> None:
    async with open_notes(database_url) as database:
        with pytest.raises(NotesUnavailable) as failure:
            await database.check()
        with pytest.raises(NotesUnavailable):
            await database.write(write_words)
    assert failure.value.retry_after == 1.0


async def test_concurrent_preparations_seed_once(database_url: str, migrations: Path) -> None:
    async with open_notes(database_url) as one, open_notes(database_url) as two, open_notes(database_url) as three:
        await asyncio.gather(*(database.prepare(migrations, seed) for database in (one, two, three)))
        await three.check()
        async with two.read() as connection:
            assert await connection.scalar(select(func.count()).select_from(notes)) == 2


async def test_an_older_schema_is_migrated_and_keeps_its_rows(
    database: Database, database_url: str, migrations: Path
) -> None:
    await database.write(write_words)
    (migrations / "versions" / "0002_stars.py").write_text(NEWER_REVISION)
    async with open_notes(database_url) as newer:
        await newer.prepare(migrations, seed)
        async with newer.read() as connection:
            row = (await connection.execute(text("SELECT words, stars FROM notes WHERE id = 1"))).one()
    assert tuple(row) == ("written", None)


async def test_a_schema_of_a_newer_release_is_rejected_and_not_changed(database_url: str, migrations: Path) -> None:
    newer = migrations / "versions" / "0002_stars.py"
    newer.write_text(NEWER_REVISION)
    async with open_notes(database_url) as database:
        await database.prepare(migrations, seed)
    newer.unlink()
    async with open_notes(database_url) as older:
        with pytest.raises(UnknownRevision, match=re.escape("0002_stars, the newest of this release is 0001_notes")):
            await older.prepare(migrations, seed)
        with pytest.raises(NotesUnavailable):
            await older.check()


async def test_a_failed_preparation_is_rolled_back(database_url: str, migrations: Path) -> None:
    def wrong_seed() -> dict[Table, list[dict[str, object]]]:
        (rows,) = seed().values()
        return {notes: rows * 2}

    async with open_notes(database_url) as database:
        with pytest.raises(IntegrityError):
            await database.prepare(migrations, wrong_seed)
        await database.prepare(migrations, seed)
        assert await words(database, note=2) == "two"


@pytest.mark.usefixtures("database")
def test_a_current_schema_is_recognised_without_alembic(database_url: str, migrations: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from opentelemetry.trace import NoOpTracer
from meshkit.database.database import Database
from meshkit.deadline import budget, remaining
from meshkit.errors import Unavailable
async def main():
    database = Database({database_url!r}, unavailable=Unavailable, tracer=NoOpTracer())
    await database.prepare(Path({str(migrations)!r}), None)
    await database.check()
    await database.close()
asyncio.run(main())
print("alembic" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


async def test_a_write_waits_for_the_lock_of_another_process(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "locked.db"
    async with open_notes(f"sqlite:///{path}") as database:
        await database.prepare(migrations, seed)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(database.write(write_words))
            done, _ = await asyncio.wait({writing}, timeout=0.05)
            assert not done
            other.execute("COMMIT")
            await writing
        assert await words(database) == "written"


async def test_a_write_waits_for_a_lock_no_longer_than_the_patience(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "locked.db"
    async with open_notes(f"sqlite:///{path}", patience=1) as database:
        await database.prepare(migrations, seed)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(NotesUnavailable) as failure:
                await database.write(write_words)
            assert await words(database) == "one", "a locked database can be read"
            other.execute("ROLLBACK")
        assert failure.value.message == "the database cannot be reached or is busy"
        assert describe(failure.value) == failure.value.message, "a TimeoutError has no message"
        await database.write(write_words)
        assert await words(database) == "written"


async def test_a_cancellation_ends_the_wait_for_a_lock(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "locked.db"
    async with open_notes(f"sqlite:///{path}") as database:
        await database.prepare(migrations, seed)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await database.write(write_words)
            other.execute("ROLLBACK")
        await database.write(write_words)
        assert await words(database) == "written"


async def test_a_missing_directory_is_an_outage(tmp_path: Path, migrations: Path) -> None:
    async with open_notes(f"sqlite:///{tmp_path / 'later' / 'notes.db'}") as database:
        with pytest.raises(NotesUnavailable):
            await database.prepare(migrations, seed)
        (tmp_path / "later").mkdir()
        await database.prepare(migrations, seed)
        assert await words(database) == "one"


async def test_calls_fail_during_an_outage_of_postgresql_and_the_first_one_after_it_works(migrations: Path) -> None:
    server = PrivatePostgres()
    with server.running() as url:
        async with open_notes(url) as database:
            await database.prepare(migrations, seed)
            held = BlockedWrite()
            writing = asyncio.create_task(database.write(held))
            await held.begun.wait()
            await asyncio.to_thread(server.stop)
            held.let_go.set()
            with pytest.raises(NotesUnavailable):
                await writing
            with pytest.raises(NotesUnavailable):
                await database.check()
            await asyncio.to_thread(server.start)
            await database.check()
            assert await words(database) == "one"


async def test_a_read_from_a_silent_server_fails_before_its_budget_ends(migrations: Path) -> None:
    """As after the loss of a machine: it accepts connections and never responds."""
    server = PrivatePostgres()
    with server.running() as url:
        async with open_notes(url) as database:
            await database.prepare(migrations, seed)
            await asyncio.to_thread(server.stop)
            with suppress(NotesUnavailable):
                await database.check()
            with socket.create_server(("127.0.0.1", server.port)), budget(2.0):
                with pytest.raises(NotesUnavailable, match="cannot be reached"):
                    await words(database)
                assert (remaining() or 0) > 0
            await asyncio.to_thread(server.start)


async def test_a_server_that_refuses_connections_is_an_outage(migrations: Path) -> None:
    async with open_notes(f"postgresql://nobody@127.0.0.1:{PrivatePostgres().port}/notes") as database:
        with pytest.raises(NotesUnavailable):
            await database.prepare(migrations, seed)


async def test_a_missing_database_or_user_is_an_outage(postgres_url: str, migrations: Path) -> None:
    right = make_url(postgres_url)
    for wrong in (right.set(database="missing"), right.set(username="nobody")):
        async with open_notes(wrong.render_as_string(hide_password=False)) as database:
            with pytest.raises(NotesUnavailable):
                await database.prepare(migrations, seed)


async def test_one_of_two_deadlocked_writes_is_unavailable_with_retry_info(
    postgres_database: str, migrations: Path
) -> None:
    both = asyncio.Barrier(2)

    def cross(connection: Connection, first: int, second: int) -> None:
        write_words(connection, "crossed", first)
        await_only(both.wait())
        write_words(connection, "crossed", second)

    async with open_notes(postgres_database) as database:
        await database.prepare(migrations, seed)
        outcomes = await asyncio.gather(
            database.write(lambda connection: cross(connection, 1, 2)),
            database.write(lambda connection: cross(connection, 2, 1)),
            return_exceptions=True,
        )
        assert {type(outcome) for outcome in outcomes} == {type(None), NotesUnavailable}
        assert await words(database) == await words(database, note=2) == "crossed"


@pytest.mark.parametrize("url", ["", "notes", "mysql://host/notes", "sqlite://", "sqlite:///:memory:", "postgresql://"])
def test_an_unsupported_database_url_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="a database is sqlite:///file or postgresql://"):
        Database(url, unavailable=NotesUnavailable, tracer=NoOpTracer())


def slow_query(connection: AsyncConnection) -> TextClause:
    """A query that takes seconds, or on SQLite some tenths of one."""
    if connection.dialect.name == "postgresql":
        return text("SELECT pg_sleep(5)")
    return text(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000000)"
        " SELECT count(*) FROM numbers"
    )
