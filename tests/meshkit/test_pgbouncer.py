"""meshkit.database behind a real PgBouncer, which shares few sessions of PostgreSQL between many connections."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, select, text

from meshkit.errors import describe
from tests.meshkit.notes import BlockedWrite, NotesUnavailable, notes, open_notes, seed, words, write_words
from tests.private_pgbouncer import private_pgbouncer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from meshkit.database.database import Database

SESSIONS = {"session": 40, "transaction": 2}


@pytest.fixture(scope="module", params=SESSIONS)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def port(postgres_url: str, mode: str) -> Iterator[int]:
    with private_pgbouncer(postgres_url, mode, sessions=SESSIONS[mode]) as port:
        yield port


@pytest.fixture
def pooled_url(postgres_database: str, port: int, mode: str) -> str:
    """An empty database behind PgBouncer."""
    url = make_url(postgres_database).set(port=port)
    query = {"pgbouncer": mode} if mode == "transaction" else {}
    return url.update_query_dict(query).render_as_string(hide_password=False)


def append(connection: Connection) -> None:
    count = connection.scalar(select(notes.c.words).where(notes.c.id == 1).with_for_update())
    write_words(connection, str(int(count or 0) + 1))


def settings(connection: Connection) -> list[str]:
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "TimeZone")
    return [str(connection.scalar(text(f"SHOW {name}"))) for name in names]


async def test_concurrent_calls_of_two_processes_share_few_sessions(pooled_url: str, migrations: Path) -> None:
    async with open_notes(pooled_url, patience=15) as one, open_notes(pooled_url, patience=15) as two:
        await asyncio.gather(*(database.prepare(migrations, seed) for database in (one, two)))
        await one.write(lambda connection: write_words(connection, "0"))
        both = [one, two] * 10
        reads = [database.check() for database in both] + [words(database, note=2) for database in both]
        found = await asyncio.gather(*(database.write(append) for database in both), *reads)
        assert found[-len(both) :] == ["two"] * len(both)
        assert await words(one) == str(len(both))


async def test_the_time_outs_hold_in_reads_and_writes(pooled_url: str, migrations: Path) -> None:
    async with open_notes(pooled_url, patience=3) as database:
        await database.prepare(migrations, seed)
        async with database.read() as connection:
            assert await connection.run_sync(settings) == ["3s", "10s", "UTC"]
        assert await database.write(settings) == ["3s", "10s", "UTC"]


async def test_a_write_waits_for_a_row_no_longer_than_the_patience(pooled_url: str, migrations: Path) -> None:
    async with open_notes(pooled_url) as one, open_notes(pooled_url, patience=2) as hasty:
        for database in (one, hasty):
            await database.prepare(migrations, seed)
        held = BlockedWrite()
        writing = asyncio.create_task(one.write(held))
        await held.begun.wait()
        with pytest.raises(NotesUnavailable, match="cannot serve now"):
            await hasty.write(write_words)
        held.let_go.set()
        await writing
        await hasty.write(write_words)
        assert await words(one) == "written"


async def test_a_failed_or_cancelled_call_leaves_no_transaction_open(pooled_url: str, migrations: Path) -> None:
    def fail(connection: Connection) -> None:
        write_words(connection)
        raise ZeroDivisionError

    async def read_slowly(database: Database) -> None:
        async with database.read() as connection:
            await connection.execute(text("SELECT pg_sleep(5)"))

    async with open_notes(pooled_url) as database:
        await database.prepare(migrations, seed)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await database.write(fail)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(read_slowly(database), 0.05)
        assert await words(database) == "one"
        async with database.read() as connection:
            others = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            )
            assert await connection.scalar(text(others)) == 0


async def test_transaction_mode_without_its_parameter_is_reported_with_the_parameter(
    pooled_url: str, mode: str, migrations: Path
) -> None:
    if mode == "session":
        return
    async with open_notes(pooled_url) as right, open_notes(pooled_url.partition("?")[0]) as wrong:
        await right.prepare(migrations, seed)
        async with held_session(right, note=1) as release:
            await wrong.prepare(migrations, seed)
            await wrong.check()  # prepares its statement in the other one of two sessions
            async with held_session(right, note=2):
                await release()
                with pytest.raises(NotesUnavailable) as failure:
                    await wrong.check()
        assert "needs ?pgbouncer=transaction in the database's URL" in describe(failure.value)


@asynccontextmanager
async def held_session(database: Database, note: int) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Uses one session until the end of the block, or until what it yields is called."""
    held = BlockedWrite(note)
    writing = asyncio.create_task(database.write(held))
    await held.begun.wait()

    async def release() -> None:
        held.let_go.set()
        await writing

    yield release
    await release()
