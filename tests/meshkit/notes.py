"""A database of notes, and what the tests of `meshkit.database` do with it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry.trace import NoOpTracer
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, select, text, update

from meshkit.database.database import Database
from meshkit.errors import Unavailable
from tests.databases import Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection

REVISION = """
from alembic import op
from sqlalchemy import Column, Integer, String
revision = "0001_notes"
down_revision = None
def upgrade():
    op.create_table("notes", Column("id", Integer, primary_key=True), Column("words", String(50)))
"""

notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True), Column("words", String(50)))


class NotesUnavailable(Unavailable, domain="notes.test"):
    """The notes cannot be read or written now."""


def write_migrations(folder: Path) -> Path:
    """A directory with the first revision."""
    directory = folder / "migrations"
    (directory / "versions").mkdir(parents=True)
    (directory / "versions" / "0001_notes.py").write_text(REVISION)
    return directory


@asynccontextmanager
async def open_notes(url: str, *, patience: float = 5.0) -> AsyncIterator[Database]:
    database = Database(url, unavailable=NotesUnavailable, tracer=NoOpTracer(), patience=patience)
    try:
        yield database
    finally:
        await database.close()


def seed() -> dict[Table, list[dict[str, object]]]:
    return {notes: [{"id": 1, "words": "one"}, {"id": 2, "words": "two"}]}


ENDLESS = {
    "postgresql": "SELECT pg_sleep(600)",
    "sqlite": "WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n FROM endless) SELECT count(*) FROM endless",
}
"""A statement that does not end, by dialect."""

WORDS = select(notes.c.words).where(notes.c.id == bindparam("note"))


async def words(database: Database, note: int = 1) -> str | None:
    rows = await database.fetch(WORDS, {"note": note})
    return rows[0][0] if rows else None


def write_words(connection: Connection, new: str = "written", note: int = 1) -> None:
    connection.execute(update(notes).where(notes.c.id == note).values(words=new))


class BlockedWrite:
    """A write that has changed a note and waits until the test releases it."""

    def __init__(self, note: int = 1) -> None:
        self.note = note
        self._hold = Hold()
        self.begun, self.let_go = self._hold.begun, self._hold.let_go

    def __call__(self, connection: Connection) -> None:
        write_words(connection, "held", self.note)
        self._hold(connection)


class EndlessWrite:
    """A write that has changed a note and sends a statement that does not end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, connection: Connection) -> None:
        write_words(connection, "endless")
        self._loop.call_soon_threadsafe(self.begun.set)
        connection.execute(text(ENDLESS[connection.dialect.name]))
