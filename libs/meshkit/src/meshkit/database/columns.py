"""Column types and inserts that SQLAlchemy does not abstract from SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, TypeDecorator
from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INSERTS: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


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


async def insert_once(connection: AsyncConnection, table: Table, **values: object) -> bool:
    """Inserts a row unless its key exists; returns whether it did.

    Waits for a concurrent transaction that inserts the same key, and returns False if that one commits.
    """
    insert = _INSERTS[connection.dialect.name]
    result = await connection.execute(insert(table).values(values).on_conflict_do_nothing())
    return result.rowcount == 1
