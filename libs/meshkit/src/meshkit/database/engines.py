"""SQLAlchemy engines for SQLite and PostgreSQL, in autocommit mode: `meshkit.database.database` sends BEGIN and COMMIT.

SQLite runs in WAL mode (readers and the writer do not block each other) with `synchronous=NORMAL`. A commit survives
the death of every process, even by SIGKILL, because the operating system has the data. Only a power cut or a system
crash may lose the last commits, without corruption. https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, WithJsonSchema
from sqlalchemy import event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_FORMS = "a database is sqlite:///file or postgresql://user:password@host:port/name"

_SET_UP_SECONDS = 5.0


def parse_url(url: str) -> URL:
    """The URL with the asynchronous driver of its database.

    Raises:
        ValueError: it is neither a file on disk nor a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(_FORMS) from None
    driver = DRIVERS.get(parsed.get_backend_name())
    if driver is None or parsed.database in {None, "", ":memory:"}:
        raise ValueError(_FORMS)
    return parsed.set(drivername=driver)


def _validate(url: str) -> str:
    parse_url(url)
    return url


DatabaseUrl = Annotated[str, AfterValidator(_validate), WithJsonSchema({"type": "string", "format": "URL"})]
"""The type of a setting that names a database."""


def sqlite_engine(url: URL, *, connections: int, busy_seconds: float) -> AsyncEngine:
    """An engine with up to `connections`; a statement waits up to `busy_seconds` for locks, blocking its own thread."""
    engine = create_async_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        connect_args={"timeout": _SET_UP_SECONDS, "factory": _SelfClosingConnection},
    )
    event.listen(engine.sync_engine, "connect", partial(_set_up_sqlite, int(busy_seconds * 1000)))
    return engine


class _SelfClosingConnection(sqlite3.Connection):
    """Closes itself when aiosqlite drops it, because its caller was cancelled while it opened (Python 3.13 warns).

    aiosqlite and SQLAlchemy still report other connections that are not closed.
    """

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it never opened
            self.close()


def _set_up_sqlite(busy_milliseconds: int, connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=NORMAL")  # reads the file, which another process may be setting to WAL
    cursor.execute(f"PRAGMA busy_timeout={busy_milliseconds}")
    cursor.close()


def postgresql_engine(url: URL, *, connections: int, patience: float) -> AsyncEngine:
    """An engine with up to `connections`; it waits up to `patience` seconds for the server or a row lock."""
    return create_async_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=2 * patience,
        connect_args={
            "timeout": patience,
            "server_settings": {
                "lock_timeout": f"{patience:.0f}s",
                "idle_in_transaction_session_timeout": "10s",
                "timezone": "UTC",
            },
        },
    )
