"""The asynchronous SQLAlchemy engine of a SQLite file, for `Database.read`.

It is a module of its own because its import, with that of SQLAlchemy's ORM, takes a fifth of the start of a service.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import create_async_engine

from meshkit.database.sqlite import AUTOCOMMIT, CONNECT, set_up

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from meshkit.database.sqlite_file import SqliteFile


def async_engine(url: URL, file: SqliteFile, *, connections: int, busy_seconds: float) -> AsyncEngine:
    """An engine with up to `connections`; a statement waits up to `busy_seconds` for locks, blocking its own thread.

    A connection creates no file, and is closed again if it has opened another one than `file`.
    """
    factory = {"factory": _SelfClosingConnection, **CONNECT}
    engine = create_async_engine(url, pool_size=connections, max_overflow=0, connect_args=factory, **AUTOCOMMIT)
    set_up(engine.sync_engine, file, busy_seconds)
    return engine


class _SelfClosingConnection(sqlite3.Connection):
    """Closes itself when aiosqlite drops it, because its caller was cancelled while it opened (Python 3.13 warns).

    aiosqlite and SQLAlchemy still report other connections that are not closed.
    """

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it never opened
            self.close()
