"""Runs a mesh from its start to its stop.

Every child has a keeper: a task that starts the child and restarts it when it exits. All keepers start at the same
time. When each child has been ready once, the table is printed. On a stop, the keepers are cancelled first, so that
nothing is restarted. Then the children are stopped stage by stage: each one after its callers have exited.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from localmesh import left_out
from localmesh.child import Child
from localmesh.console import Console
from localmesh.follow import Tail, follow, warnings
from localmesh.keeper import INVALID_SETTING, CannotRun, keep
from localmesh.mesh import Mesh
from localmesh.patience import Patience
from localmesh.reload import Reload
from localmesh.signals import StopSignals
from localmesh.state import State
from localmesh.stopping import stop

LOG_CHECK = 5.0  # seconds between two checks of the size of the logs


class Supervisor:
    """Runs one mesh once; the caller has locked the state directory."""

    def __init__(self, mesh: Mesh, state: State, console: Console, patience: Patience) -> None:
        self._mesh = mesh
        self._console = console
        self._patience = patience
        self._stages = [
            [Child(program, state.log(program.name), state.children_lock) for program in stage] for stage in mesh.stages
        ]
        self._state = state
        self._children = [child for stage in reversed(self._stages) for child in stage]

    async def run(self) -> int:
        """Runs the mesh until a signal stops it.

        Returns the exit status: 0; 1 if the mesh could not run or a child had to be killed; 2 for an invalid setting.
        """
        signals = StopSignals(self._console.say)
        status = 0
        try:
            await self._serve(signals)
        except* CannotRun as failures:
            for failure in failures.exceptions:
                self._console.bad(str(failure), getattr(failure, "details", ()))
                status = max(status, getattr(failure, "status", 1))
        finally:
            # The invalid setting is then the last line.
            killed = await self._stop(signals, quiet=status == INVALID_SETTING)
        return max(status, int(killed))

    async def _serve(self, signals: StopSignals) -> None:
        async with asyncio.TaskGroup() as group:
            keepers = (keep(child, self._console, self._patience) for child in self._children)
            watches = (left_out.watch(program, self._console) for program in self._mesh.left_out)
            own = (self._announce(), self._bound_logs(), Reload(self._children, self._console).watch())
            tasks = [group.create_task(work) for work in (*keepers, *watches, *own)]
            await signals.stop.wait()
            for task in tasks:
                task.cancel()

    async def _announce(self) -> None:
        """When all children are ready, prints warnings and the table; then, on a terminal, follows the logs."""
        tails = [Tail(child.log.path) for child in self._children]
        self._console.say(f"starting {', '.join(child.name for child in self._children)}")
        if not await self._all_ready(self._patience.start_notice):
            text = f"still waiting for the health checks of {self._unready_names()}"
            self._console.bad(text, self._unready_details())
            if not await self._all_ready(self._patience.start):
                text = f"not ready in time: {self._unready_names()}"
                raise CannotRun(text, self._unready_details())
        for line in warnings(tails, self._console):
            self._console.say_escaped(line)
        self._console.table(("name", "address", "pid", "ready in"), [_row(child) for child in self._children])
        self._console.say(self._mesh.welcome)
        for program in self._mesh.left_out:
            left_out.write_environment(program, self._state.path)
            self._console.say(left_out.instructions(program, self._state.path))
        if self._console.is_terminal:
            await follow(tails, self._console)

    async def _all_ready(self, limit: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                for child in self._children:
                    await child.was_ready.wait()
        return not self._unready()

    def _unready(self) -> list[Child]:
        return [child for child in self._children if not child.was_ready.is_set()]

    def _unready_names(self) -> str:
        return ", ".join(child.name for child in self._unready())

    def _unready_details(self) -> list[str]:
        children = self._unready()
        return [line for child in children for line in (*child.log.last_lines(), f"… in {child.log.path}")]

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK)
            for child in self._children:
                with suppress(OSError):  # a full disk must not stop the mesh
                    child.log.bound()

    async def _stop(self, signals: StopSignals, *, quiet: bool) -> bool:
        """Stops the children in order; returns whether one had to be killed. `quiet` reports only that."""
        say = _ignore if quiet else self._console.say
        say("stopping (Ctrl-C again skips the drain)")
        killed = False
        for stage in self._stages:
            stops = (self._stop_child(child, signals, say) for child in stage if child.is_running)
            killed |= any(await asyncio.gather(*stops))
        return killed

    async def _stop_child(self, child: Child, signals: StopSignals, say: Callable[[str], None]) -> bool:
        start = time.monotonic()
        killed = await stop(child, signals, self._patience)
        duration = f"{time.monotonic() - start:.2f} s"
        if killed:
            self._console.bad(f"{child.name} did not exit within {duration} and was killed", child.log.last_lines())
        else:
            say(f"{child.name} {child.status} after {duration}")
        return killed


def _ignore(_: str) -> None:
    pass


def _row(child: Child) -> tuple[str, ...]:
    return child.name, child.program.address, str(child.pid), f"{child.time_to_ready * 1000:.0f} ms"
