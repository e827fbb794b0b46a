"""What `meshkit.database.database` needs of each kind of database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.selectable import TypedReturnsRows

CHECK = "SELECT version_num FROM alembic_version"

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Backend(Protocol):
    """The connections to one database, in autocommit mode. The caller closes it.

    Its methods raise TimeoutError after too long a wait for a connection or a lock, OSError when there is no connection
    or a file was replaced, and what the drivers raise.
    """

    async def create(self) -> None:
        """Creates the database if it is a file that is missing. Called before the other methods, until it succeeds."""
        ...

    def fetch(
        self, statement: TypedReturnsRows[*Ts], parameters: Mapping[str, Any], patience: float
    ) -> Awaitable[Sequence[tuple[*Ts]]]:
        """The rows of a constant statement, which waits for a connection up to `patience` seconds."""
        ...

    def read(self, patience: float) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection for reading, for which the caller waits up to `patience` seconds."""
        ...

    async def look(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`, outside of a transaction."""
        ...

    async def check(self) -> None:
        """Sends CHECK on a connection that no other call uses."""
        ...

    async def write(self, work: Callable[[Connection], T], finish_seconds: float) -> T:
        """The result of `work`, in a transaction: committed when it returns, rolled back when it raises.

        A caller that is cancelled waits for a transaction that has begun, and it is rolled back after `finish_seconds`.
        """
        ...

    async def close(self) -> None:
        """Closes all connections. No call may be in flight but `fetch`, which then raises ConnectionError."""
        ...
