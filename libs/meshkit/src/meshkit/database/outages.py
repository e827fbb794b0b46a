"""Turns driver errors of a database that cannot serve now into the service's error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from meshkit.database.tracing import status_code

if TYPE_CHECKING:
    from meshkit.errors import Unavailable

RETRY_AFTER = 1.0
"""Seconds until callers should retry."""

TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014", "25006", "3D000"})
TRANSIENT_CLASSES = frozenset({"08", "28", "53", "57", "58"})
"""SQLSTATEs of PostgreSQL when it cannot serve now: serialization, deadlock, lock and statement time-outs, read-only
standby, missing database; connection, authorization, resources, operator intervention, system error.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""

SHARED_SESSION = frozenset({"26000", "42P05"})
"""SQLSTATEs when another client uses the same session: a prepared statement is missing, or exists already."""

SHARED_SESSION_NOTE = "a PgBouncer in transaction mode needs ?pgbouncer=transaction in the database's URL"

TRANSIENT_SQLITE = (
    *("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_READONLY"),
    *("SQLITE_CORRUPT", "SQLITE_NOTADB"),
)
"""The same for SQLite, including extended codes. https://www.sqlite.org/rescode.html"""


class raise_unavailable:  # noqa: N801 - used like a function; contextlib's own kind costs three times as much
    """Raises the service's error for a database that cannot serve; callers never see a driver's text.

    The driver's error may be wrapped by SQLAlchemy or not.
    """

    __slots__ = ("_unavailable",)

    def __init__(self, unavailable: type[Unavailable]) -> None:
        self._unavailable = unavailable

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None and (message := _reason(error)):
            failure = self._unavailable(message, retry_after=RETRY_AFTER)
            if status_code(error) in SHARED_SESSION:
                failure.add_note(SHARED_SESSION_NOTE)
            raise failure from error


def _reason(error: BaseException) -> str | None:
    """Why the database cannot serve now; None if the error says nothing of that."""
    match error:
        case TimeoutError():
            return "the database cannot be reached or is busy"
        case OSError():
            return "the database cannot be reached"
        case Exception() if status_code(error) in SHARED_SESSION or _is_transient(error):
            return "the database cannot serve now"
    return None


def _is_transient(error: Exception) -> bool:
    code = status_code(error) or ""
    return (
        (isinstance(error, DBAPIError) and error.connection_invalidated)
        or code in TRANSIENT
        or code[:2] in TRANSIENT_CLASSES
        or code.startswith(TRANSIENT_SQLITE)
    )
