"""Tests that never end, for `test_time_limit` to run. Each hangs in a different place."""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def test_in_an_await() -> None:
    await wait_for_ever()


async def test_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(threading.Event().wait)
    await wait_for_ever()


async def test_in_a_callback_that_catches_everything() -> None:
    def drop() -> None:
        with suppress(BaseException):
            time.sleep(1000)

    asyncio.get_running_loop().call_soon(drop)
    await wait_for_ever()


async def test_in_the_loop() -> None:
    time.sleep(1000)  # noqa: ASYNC251


@given(st.integers())
async def test_in_hypothesis(number: int) -> None:
    await wait_for_ever()


def test_without_a_loop() -> None:
    time.sleep(1000)


@pytest.fixture
def other() -> Iterator[None]:
    yield
    sys.stdout.write("the other fixture was closed")


@pytest.fixture
async def endless(other: None) -> AsyncIterator[None]:
    yield
    await wait_for_ever()


@pytest.mark.usefixtures("endless")
async def test_in_the_teardown() -> None:
    pass


@pytest.mark.usefixtures("endless")
async def test_in_the_teardown_of_a_failure() -> None:
    raise AssertionError("it failed before")


def test_that_no_alarm_reaches() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(1000)


@pytest.mark.timeout(60)
async def test_with_a_longer_limit() -> None:
    await asyncio.sleep(1.5)
