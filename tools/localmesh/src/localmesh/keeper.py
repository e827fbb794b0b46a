"""Keeps one child running: a task for each child, cancelled before the children are stopped."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from localmesh.child import Child
from localmesh.console import Console
from localmesh.patience import Patience
from localmesh.probe import wait_ready
from localmesh.stopping import replace

DEATHS_LIMIT = 3  # of a child that was never ready
INVALID_SETTING = 2  # the exit status of a program that cannot start with its settings


class GaveUp(Exception):
    """The mesh cannot run.

    Attributes:
        details: the last lines of the child to blame.
        status: the exit status to end with.
    """

    def __init__(self, text: str, details: Sequence[str] = (), status: int = 1) -> None:
        super().__init__(text)
        self.details = details
        self.status = status


async def keep(child: Child, console: Console, patience: Patience) -> NoReturn:
    """Starts a child, and again whenever it has ended; says so each time.

    Cancelling it leaves the child's process as it is.

    Raises:
        GaveUp: the child cannot be started, has an invalid setting, or ended again and again without ever being ready.
    """
    deaths, told = 0, ""
    while True:
        lived = await _one_life(child, console, patience)
        if child.saved.is_set():
            deaths = 0
            continue
        if child.exit_status == INVALID_SETTING and not child.was_ready.is_set():
            raise GaveUp(f"{child.name} cannot start", child.log.last_lines(), INVALID_SETTING)
        deaths = 1 if lived > patience.steady else deaths + 1
        if deaths >= DEATHS_LIMIT and not child.was_ready.is_set():
            raise GaveUp(f"{child.name} {child.status} {deaths} times before it was ready", child.log.last_lines())
        if child.program.sources and child.was_ready.is_set() and not child.is_ready:
            console.bad(f"{child.name} {child.status}: it is started again when you save", child.log.last_lines())
            await child.saved.wait()
            deaths = 0
            continue
        pause = patience.restart(deaths)
        # A child that dies again at once in the same way would fill the terminal with the same lines.
        details = [] if deaths > 1 and child.status == told else child.log.last_lines()
        console.bad(f"{child.name} (pid {child.pid}) {child.status}: starting it again in {pause:.1f} s", details)
        told = child.status
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await child.saved.wait()


async def _one_life(child: Child, console: Console, patience: Patience) -> float:
    """Starts the child and waits until it has ended, of itself or because its sources change; its age in seconds."""
    try:
        await child.start()
    except OSError as error:
        raise GaveUp(f"{child.name} cannot be started: {error.strerror}") from error
    async with asyncio.TaskGroup() as life:
        tasks = [life.create_task(work) for work in (_watch(child, console), _replace(child, patience))]
        await child.ended()
        for task in tasks:
            task.cancel()
    return child.age


async def _replace(child: Child, patience: Patience) -> None:
    await child.saved.wait()
    await replace(child, patience)


async def _watch(child: Child, console: Console) -> None:
    again = child.was_ready.is_set()
    await wait_ready(child.program.ready)
    child.note_ready()
    if again:
        console.good(f"{child.name} is ready again (pid {child.pid}, after {child.time_to_ready * 1000:.0f} ms)")
