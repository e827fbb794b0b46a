"""`concurrently` awaits any number of branches; the first one that fails cancels the others."""

from __future__ import annotations

import asyncio
from typing import TypeVar, assert_type

import pytest

from api_edge.concurrency import concurrently

T = TypeVar("T")


async def value(result: T) -> T:
    return result


async def failure(error: Exception) -> int:
    raise error


class EndlessCalls:
    """Calls that wait until they are cancelled, and their number."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.count = 0

    async def call(self) -> int:
        self.count += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return 0


async def test_results_have_the_order_and_the_types_of_the_branches() -> None:
    assert_type(await concurrently(value(1), value("a")), tuple[int, str])
    three = assert_type(await concurrently(value(1), value("a"), value(None)), tuple[int, str, None])
    assert three == (1, "a", None)
    assert_type(await concurrently(value(1), value("a"), value(None), value(b"")), tuple[int, str, None, bytes])


@pytest.mark.parametrize("count", [0, 1, 5, 50])
async def test_any_number_of_branches_is_possible(count: int) -> None:
    assert await concurrently(*map(value, range(count))) == tuple(range(count))


async def test_all_branches_run_at_the_same_time() -> None:
    meeting = asyncio.Barrier(5)
    assert len(await concurrently(*(meeting.wait() for _ in range(5)))) == 5


@pytest.mark.parametrize("others", [1, 2, 6])
async def test_the_first_failure_cancels_the_others_and_is_raised_unchanged(others: int) -> None:
    calls, error = EndlessCalls(), LookupError("no such thing")
    with pytest.raises(LookupError) as raised:
        await concurrently(*(calls.call() for _ in range(others)), failure(error))
    assert raised.value is error
    assert (calls.count, calls.cancelled) == (others, others)


async def test_of_two_failures_the_first_is_raised() -> None:
    with pytest.raises(ExceptionGroup, match="the first"):
        await concurrently(failure(ExceptionGroup("the first", [ValueError()])), failure(LookupError("the second")))


async def test_a_cancelled_caller_cancels_every_branch() -> None:
    calls = EndlessCalls()
    async with asyncio.TaskGroup() as group:
        caller = group.create_task(concurrently(*(calls.call() for _ in range(3))))
        while calls.count < 3:
            await asyncio.sleep(0)
        caller.cancel()
    assert caller.cancelled()
    assert calls.cancelled == 3
