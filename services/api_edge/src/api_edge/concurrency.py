"""Awaits several calls at the same time, and work that must not stop half-way."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar, overload

from meshkit.errors import ServiceError, describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

log = logging.getLogger("api_edge.concurrency")

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


@overload
async def concurrently(first: Coroutine[Any, Any, T1], second: Coroutine[Any, Any, T2], /) -> tuple[T1, T2]: ...


@overload
async def concurrently(
    first: Coroutine[Any, Any, T1], second: Coroutine[Any, Any, T2], third: Coroutine[Any, Any, T3], /
) -> tuple[T1, T2, T3]: ...


@overload
async def concurrently(
    first: Coroutine[Any, Any, T1],
    second: Coroutine[Any, Any, T2],
    third: Coroutine[Any, Any, T3],
    fourth: Coroutine[Any, Any, T4],
    /,
) -> tuple[T1, T2, T3, T4]: ...


@overload
async def concurrently(*branches: Coroutine[Any, Any, T]) -> tuple[T, ...]: ...


async def concurrently(*branches: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """The results of all branches, in their order. A failure cancels the others and is raised unchanged.

    If others fail, too, while they are cancelled, one of the failures is raised.
    The first branch runs in the caller's own task.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch) for branch in branches[1:]]
            results = [await branch for branch in branches[:1]]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return (*results, *(task.result() for task in tasks))


async def result_or_error(call: Awaitable[T]) -> T | ServiceError:
    """The call's result or its error, for a caller that needs the outcome of several calls before it decides."""
    try:
        return await call
    except ServiceError as error:
        return error


async def shielded(task: asyncio.Task[T]) -> T:
    """The task's result. If the caller is cancelled, the task runs on, and its failure is only logged."""
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.add_done_callback(_log_failure)
        raise
    return task.result()


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.info("a task that outlived its request failed: %s", describe(error))
