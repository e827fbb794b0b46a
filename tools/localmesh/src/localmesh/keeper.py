"""Keeps one child running. Each child has its own task, which is cancelled before the child is stopped."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from localmesh.child import Child
from localmesh.console import Console
from localmesh.patience import Patience
from localmesh.probe import wait_ready
from localmesh.stopping import replace

DEATHS_LIMIT = 3  # for a child that was never ready
INVALID_SETTING = 2  # the exit status of a program that cannot start with its settings


class CannotRun(Exception):
    """The mesh cannot run.

    Attributes:
        details: the last log lines of the child that failed.
        status: the exit status of localmesh.
    """

    def __init__(self, text: str, details: Sequence[str] = (), status: int = 1) -> None:
        super().__init__(text)
        self.details = details
        self.status = status


async def keep(child: Child, console: Console, patience: Patience) -> NoReturn:
    """Starts a child, and starts it again each time it exits; prints why.

    Cancelling this leaves the child's process running.

    Raises:
        CannotRun: the child cannot be started, has an invalid setting, or exited several times before it was ready.
    """
    deaths, last_status = 0, ""
    while True:
        age = await _run_once(child, console, patience)
        if child.sources_changed.is_set():
            deaths = 0
            continue
        if child.exit_status == INVALID_SETTING and not child.was_ready.is_set():
            raise CannotRun(f"{child.name} cannot start", child.log.last_lines(), INVALID_SETTING)
        deaths = 1 if age > patience.steady else deaths + 1
        if deaths >= DEATHS_LIMIT and not child.was_ready.is_set():
            raise CannotRun(f"{child.name} {child.status} {deaths} times before it was ready", child.log.last_lines())
        if child.program.sources and child.was_ready.is_set() and not child.is_ready:
            console.bad(f"{child.name} {child.status}: save a change to restart it", child.log.last_lines())
            await child.sources_changed.wait()
            deaths = 0
            continue
        pause = patience.restart(deaths)
        # Without the last lines if it exits in the same way again, which would fill the terminal with the same text.
        details = [] if deaths > 1 and child.status == last_status else child.log.last_lines()
        console.bad(f"{child.name} (pid {child.pid}) {child.status}: restarting it in {pause:.1f} s", details)
        last_status = child.status
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await child.sources_changed.wait()


async def _run_once(child: Child, console: Console, patience: Patience) -> float:
    """Starts the child and waits until it exits, by itself or for a restart; returns its age in seconds."""
    try:
        await child.start()
    except OSError as error:
        raise CannotRun(f"{child.name} cannot be started: {error.strerror}") from error
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (_watch(child, console), _replace(child, patience))]
        await child.wait()
        child.kill_workers()
        for task in tasks:
            task.cancel()
    return child.age


async def _replace(child: Child, patience: Patience) -> None:
    await child.sources_changed.wait()
    await replace(child, patience)


async def _watch(child: Child, console: Console) -> None:
    again = child.was_ready.is_set()
    await wait_ready(child.program.ready)
    child.note_ready()
    if again:
        console.good(f"{child.name} is ready again (pid {child.pid}, after {child.time_to_ready * 1000:.0f} ms)")
