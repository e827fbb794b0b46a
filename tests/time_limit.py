"""Ends a test that takes longer than its limit, wherever it stands, and shows what every task waits for.

pytest-timeout reads the limit (`timeout` in pyproject.toml, `@pytest.mark.timeout`, `--timeout`) and calls the first
two hooks below instead of its own. Its own alarm raises once, and asyncio drops what is raised in a callback
(https://github.com/pytest-dev/pytest-timeout/issues/113): the test then waits for ever, as it does when Hypothesis
calls it again, or when it hangs in its teardown after it has failed. So here:

1. The alarm raises what asyncio and Hypothesis let pass, and raises it again until the test ends.
2. Set-up, call and teardown have the limit each.
3. A process that no alarm reaches is killed. pytest-xdist names the test and continues in another process.
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
"""Seconds that a test beyond its limit has to clean up before the alarm raises again."""

LAST_RESORT = 3
"""The multiple of its limit at which a test that no alarm has ended is killed with its process."""

INNERMOST = 15
"""How many frames of a thread are shown."""

KILLED = "AIOMESH_KILLED_TESTS"

_limit = pytest.StashKey[float]()


class TimeExceeded(OutcomeException, KeyboardInterrupt):
    """A test is beyond its limit. The first base is collected by pytest's fixtures, the second passed on by asyncio."""


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Keeps the limit of a test."""
    item.stash[_limit] = settings.timeout
    return True


def pytest_timeout_cancel_timer() -> bool:
    """Does nothing: pytest-timeout would stop the time of a test as soon as it fails."""
    return True


def pytest_handlecrashitem(crashitem: str) -> None:
    """Tells the next processes which test killed one: pytest-xdist hands them all of its file once more."""
    os.environ[KILLED] = f"{os.environ.get(KILLED, '')}\n{crashitem}"


def pytest_enter_pdb() -> None:
    """Stops the time for a person who looks around."""
    _stop()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Gives the set-up, the call and the teardown of a test the limit each; beyond it they fail."""
    if item.nodeid in os.environ.get(KILLED, "").splitlines():
        pytest.fail("no alarm ended it: it was killed with its process", pytrace=False)
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
    stderr = item.config.stash[fault_handler_stderr_fd_key]  # the one of the process, which pytest does not capture
    faulthandler.dump_traceback_later(LAST_RESORT * limit, exit=True, file=stderr)


def _stop() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()


def stacks(frame: FrameType | None) -> str:
    """Where the main thread, every task of its event loop and the other threads stand."""
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
