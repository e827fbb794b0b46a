"""Write transactions, whose statements plain functions send on a SQLAlchemy Connection, whatever the database is.

A transaction that has started is finished: it is committed or rolled back even if its caller is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

from meshkit.errors import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy import Connection

log = logging.getLogger("meshkit.database")

T = TypeVar("T")


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Ends a transaction that has started: commits it after the block, or rolls it back if the block raises."""
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: Connection) -> None:
    """Ends a transaction, if need be with its connection."""
    if connection.invalidated:  # a broken or interrupted connection is closed, which rolls back
        return
    try:
        connection.exec_driver_sql("ROLLBACK")
    except DBAPIError:
        connection.invalidate()


async def finish(write: asyncio.Future[T], seconds: float, stop: Callable[[asyncio.Future[T]], Awaitable[None]]) -> T:
    """The result of a write in flight.

    A cancellation is raised after it has finished, or was stopped after `seconds` or a second cancellation.
    """
    try:
        await asyncio.wait({write})
    except asyncio.CancelledError:
        await _wait_or_stop(write, seconds, stop)
        raise
    return write.result()


async def _wait_or_stop(
    write: asyncio.Future[T], seconds: float, stop: Callable[[asyncio.Future[T]], Awaitable[None]]
) -> None:
    try:
        await asyncio.wait({write}, timeout=seconds)
    finally:
        if not write.done():
            await stop(write)
        if write.done() and not write.cancelled() and (error := write.exception()):
            log.info("a write failed after its caller was cancelled: %s", describe(error))
