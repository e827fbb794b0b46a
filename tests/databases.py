"""Databases that the tests of a module share, each test as the migrations and seeds left them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.util import await_only

from tests.private_postgres import empty_databases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    import pytest
    from sqlalchemy import Connection, MetaData, RowMapping, Table

    from meshkit.database import Database


@asynccontextmanager
async def new_databases(request: pytest.FixtureRequest, folder: Path, count: int) -> AsyncIterator[list[str]]:
    """The URLs of empty databases, which are deleted after the block.

    `request.param` is `sqlite`, for files, or `postgresql`, for databases of the server of the tests.
    """
    if request.param == "sqlite":
        yield [f"sqlite:///{folder / str(number)}.db" for number in range(count)]
        return
    async with empty_databases(request.getfixturevalue("postgres_url"), count) as urls:
        yield urls


class Seeded:
    """A database with the rows of its seeds, to which `restore` returns it. The caller closes it."""

    def __init__(self, database: Database, rows: dict[Table, list[dict[str, Any]]]) -> None:
        self.database, self._rows = database, rows

    @classmethod
    async def read(cls, database: Database, metadata: MetaData) -> Seeded:
        """Takes the rows that a database has now."""
        rows: dict[Table, list[dict[str, Any]]] = {}
        async with database.read() as connection:
            for table in metadata.sorted_tables:
                found: list[RowMapping] = list((await connection.execute(select(table))).mappings())
                rows[table] = [dict(row) for row in found]
        return cls(database, rows)

    async def restore(self) -> None:
        """Gives all tables their first rows again."""
        await self.database.write(self._replace)

    def _replace(self, connection: Connection) -> None:
        for table in reversed(self._rows):
            connection.execute(table.delete())
        for table, rows in self._rows.items():
            if rows:
                connection.execute(table.insert(), rows)


class Hold:
    """Keeps a transaction, whose function calls it, until the test lets it go. Made in the event loop.

    Attributes:
        begun: set when the transaction waits.
        let_go: the test sets it.
    """

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, connection: Connection) -> None:
        wait_in_transaction(self._wait(), connection, self._loop)

    async def _wait(self) -> None:
        self.begun.set()
        await self.let_go.wait()


def wait_in_transaction(
    waiting: Coroutine[Any, Any, object], connection: Connection, loop: asyncio.AbstractEventLoop
) -> None:
    """Waits for something in the event loop: in a greenlet of the loop, or in a thread."""
    if connection.dialect.is_async:
        await_only(waiting)
    else:
        asyncio.run_coroutine_threadsafe(waiting, loop).result()
