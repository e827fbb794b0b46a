"""Finishes a write transaction that has started, so it is committed or rolled back even if the caller is cancelled."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

from meshkit.errors import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sqlalchemy.ext.asyncio import AsyncConnection

log = logging.getLogger("meshkit.database")

T = TypeVar("T")


async def transaction(connection: AsyncConnection, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Runs `work` in a transaction that has started: commits when it returns, rolls back when it raises."""
    try:
        result = await work(connection)
        await connection.exec_driver_sql("COMMIT")
    except BaseException:
        await _roll_back(connection)
        raise
    return result


async def _roll_back(connection: AsyncConnection) -> None:
    if connection.invalidated:  # a broken or interrupted connection is closed, which rolls back
        return
    try:
        await connection.exec_driver_sql("ROLLBACK")
    except DBAPIError:
        await connection.invalidate()


async def finish(work: Coroutine[None, None, T], seconds: float) -> T:
    """The result of `work`. A cancellation is raised after `work` has finished, or was cancelled after `seconds`."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await _wait_or_cancel(task, seconds)
        raise
    return task.result()


async def _wait_or_cancel(task: asyncio.Task[T], seconds: float) -> None:
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()):
            log.info("a write failed after its caller was cancelled: %s", describe(error))
