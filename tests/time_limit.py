"""Fails a test that takes longer than its limit, and shows what every task waits for.

pytest-timeout reads the limit (`timeout` in pyproject.toml, `@pytest.mark.timeout`, `--timeout`) and calls the first
two hooks below instead of its own. Its own alarm raises once, and asyncio drops an exception that is raised in a
callback (https://github.com/pytest-dev/pytest-timeout/issues/113). The test then waits for ever, and also when
Hypothesis calls it again, or when it hangs in its teardown after a failure. So this module differs:

1. The alarm raises an exception that asyncio and Hypothesis do not catch, and raises it again until the test ends.
2. Set-up, call and teardown each have the full limit.
3. A process that blocks the alarm is killed. pytest-xdist names the test and continues in another process.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import inspect
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from _pytest.outcomes import OutcomeException
from pytest_timeout import is_debugging  # type: ignore[import-untyped] # it ships no types

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import FrameType

AGAIN = 5.0
"""Seconds from one alarm to the next, in which the test can clean up."""

LAST_RESORT = 3
"""The multiple of the limit after which a test that still runs is killed with its process."""

INNERMOST = 15
"""The number of frames shown for a thread."""

KILLED = "AIOMESH_KILLED_TESTS"

_limit = pytest.StashKey[float]()


class TimeExceeded(OutcomeException, KeyboardInterrupt):
    """A test is beyond its limit. pytest's fixtures catch the first base class; asyncio does not catch the second."""


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Stores the limit of a test."""
    item.stash[_limit] = settings.timeout
    return True


def pytest_timeout_cancel_timer() -> bool:
    """Does nothing, because pytest-timeout calls it as soon as a test fails, before the teardown."""
    return True


def pytest_handlecrashitem(crashitem: str) -> None:
    """Records the killed test in the environment: pytest-xdist runs all tests of its file again in a new process."""
    os.environ[KILLED] = f"{os.environ.get(KILLED, '')}\n{crashitem}"


def pytest_enter_pdb() -> None:
    """Stops the time while a person uses the debugger."""
    _stop()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Applies the limit to the set-up, the call and the teardown of a test."""
    if item.nodeid in os.environ.get(KILLED, "").splitlines():
        pytest.fail("the alarm could not stop this test: it was killed with its process", pytrace=False)
    try:
        _start(item)
        try:
            return (yield)
        finally:
            _stop()
    except TimeExceeded as error:
        _stop()
        raise pytest.fail.Exception(error.msg, pytrace=False) from None


pytest_runtest_call = pytest_runtest_teardown = pytest_runtest_setup


def _start(item: pytest.Item) -> None:
    limit = item.stash.get(_limit, 0.0)
    if not limit or is_debugging():
        return

    def expire(_number: int, frame: FrameType | None) -> None:
        raise TimeExceeded(f"longer than {limit:g} s\n{stacks(frame)}")

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, limit, min(limit, AGAIN))
    stderr = item.config.stash[fault_handler_stderr_fd_key]  # the original stderr, which pytest does not capture
    faulthandler.dump_traceback_later(LAST_RESORT * limit, exit=True, file=stderr)


def _stop() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()


def stacks(frame: FrameType | None) -> str:
    """The stacks of the main thread, of every task of its event loop, and of the other threads."""
    return "\n".join(f"~~~ {title}\n{''.join(lines)}" for title, lines in _stacks(frame))


def _stacks(frame: FrameType | None) -> Iterator[tuple[str, list[str]]]:
    yield "main thread", traceback.format_stack(frame, INNERMOST)
    if loop := asyncio._get_running_loop():
        for task in asyncio.all_tasks(loop):
            yield f"task {task.get_name()}", _stack_of(task)
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.ident in frames:
            yield f"thread {thread.name}", traceback.format_stack(frames[thread.ident], INNERMOST)


def _stack_of(task: asyncio.Task[Any]) -> list[str]:
    """The lines at which a task waits, the innermost last; `Task.get_stack` has only the outermost."""
    summary = traceback.StackSummary()
    waiting: object = task.get_coro()
    while frame := getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None):
        summary.extend(traceback.StackSummary.extract([(frame, frame.f_lineno)]))
        waiting = _awaited(waiting)
    return [*summary.format(), f"  waits for {waiting!r}\n"]


def _awaited(waiting: object) -> object:
    awaited = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    generators = [each for each in gc.get_referents(awaited) if inspect.isasyncgen(each)]  # of `anext(generator)`
    return generators[0] if generators else awaited
