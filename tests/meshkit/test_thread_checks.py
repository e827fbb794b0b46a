"""In the tests of meshkit, another thread must not call the event loop: see conftest.py."""

import asyncio

import pytest


async def test_a_call_of_the_event_loop_from_another_thread_raises() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(RuntimeError, match="thread-safe"):
        await asyncio.to_thread(loop.call_soon, print)
    with pytest.raises(RuntimeError, match="thread-safe"):
        await asyncio.to_thread(lambda: loop.call_later(0, print))
