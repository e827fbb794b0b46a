"""SQLAlchemy engines for a SQLite file, in autocommit mode: `meshkit.database.database` sends BEGIN and COMMIT.

SQLite runs in WAL mode (readers and the writer do not block each other) with `synchronous=NORMAL`. A commit survives
the death of every process, even by SIGKILL, because the operating system has the data. Only a power cut or a system
crash may lose the last commits, without corruption. https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import NullPool, create_engine, event

if TYPE_CHECKING:
    from sqlalchemy import URL, Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from meshkit.database.sqlite_file import SqliteFile

_SET_UP_SECONDS = 5.0

CONNECT = {"timeout": _SET_UP_SECONDS, "uri": True}
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True, "hide_parameters": True}


def sqlite_engine(url: URL, file: SqliteFile) -> Engine:
    """An engine without a pool, whose statements do not wait for locks.

    A connection creates no file, and is closed again if it has opened another one than `file`.
    """
    own = url.set(drivername="sqlite")
    engine = create_engine(own, poolclass=NullPool, connect_args={"check_same_thread": False, **CONNECT}, **AUTOCOMMIT)
    set_up(engine, file, busy_seconds=0.0)
    return engine


def set_up(engine: Engine, file: SqliteFile, busy_seconds: float) -> None:
    """Makes the engine open `file` only. A statement waits up to `busy_seconds` for locks, blocking its own thread."""
    event.listen(engine, "do_connect", partial(_name_file, file))
    event.listen(engine, "connect", partial(_set_up, int(busy_seconds * 1000), file))


def connect_reader(file: SqliteFile, busy_seconds: float) -> sqlite3.Connection:
    """A connection that only reads, for the calling thread, which closes it.

    Raises:
        FileReplaced: it has opened another file than `file`.
        sqlite3.OperationalError: the file cannot be opened.
    """
    connection = sqlite3.connect(file.uri, uri=True, isolation_level=None, timeout=_SET_UP_SECONDS)
    try:
        file.verify()
        connection.execute("PRAGMA query_only=ON")
        connection.execute(f"PRAGMA busy_timeout={int(busy_seconds * 1000)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _name_file(
    file: SqliteFile, _dialect: Dialect, _record: ConnectionPoolEntry, arguments: list[Any], _named: dict[str, Any]
) -> None:
    arguments[0] = file.uri


def _set_up(busy_milliseconds: int, file: SqliteFile, connection: DBAPIConnection, _record: object) -> None:
    file.verify()
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=NORMAL")  # reads the file, which another process may be setting to WAL
    cursor.execute(f"PRAGMA busy_timeout={busy_milliseconds}")
    cursor.close()
