"""Column types and inserts that SQLAlchemy does not abstract from SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect, Table
    from sqlalchemy.dialects import postgresql, sqlite

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcMicros(TypeDecorator[datetime]):
    """A column of aware datetimes, stored as integer microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's
        """The stored form of a datetime."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """The datetime of a stored value, in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


def insert_once(connection: Connection, table: Table, **values: object) -> bool:
    """Inserts a row unless its key exists; returns whether it did.

    Waits for a concurrent transaction that inserts the same key, and returns False if that one commits.
    """
    result = connection.execute(_insert_once(connection.dialect.name, table), values)
    return result.rowcount == 1


@cache
def _insert_once(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An insert of the dialect in use; the import of the other one would only slow the start."""
    insert: sqlite.Insert | postgresql.Insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
    return insert.on_conflict_do_nothing()
