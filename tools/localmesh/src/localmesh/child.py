"""One process of the mesh, across its restarts."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from localmesh import launch
from localmesh.logs import Log
from localmesh.program import Program

LAUNCH = (sys.executable, "-I", "-S", str(Path(launch.__file__)))


class Child:
    """A program, its current process if one runs, and its log.

    The process leads its own session, so it gets no signals from the terminal. It inherits the descriptor `lock`. It
    starts as `launch`, which replaces itself by the program: the program is a direct child of localmesh.
    """

    def __init__(self, program: Program, log: Log, lock: int) -> None:
        self.program = program
        self.log = log
        self.was_ready = asyncio.Event()
        """Set when the child is ready for the first time, and never cleared."""
        self.is_ready = False
        """Whether the current or last process became ready."""
        self.sources_changed = asyncio.Event()
        """Set when its sources have changed since the current or last process started."""
        self.time_to_ready = 0.0
        """Seconds from the start of the current process until it was ready."""
        self._lock = lock
        self._process: asyncio.subprocess.Process | None = None
        self._start_time = 0.0

    @property
    def name(self) -> str:
        """The name of the program."""
        return self.program.name

    @property
    def pid(self) -> int:
        """The id of the current or last process; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def age(self) -> float:
        """Seconds since the current or last process started."""
        return time.monotonic() - self._start_time

    @property
    def is_running(self) -> bool:
        """Whether a process is running."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts a process.

        Raises:
            OSError: the system cannot create the process or its log.
        """
        output = self.log.open()
        try:
            self._start_time, self.is_ready = time.monotonic(), False
            self.sources_changed.clear()
            self._process = await asyncio.create_subprocess_exec(
                *LAUNCH,
                str(os.getpid()),
                *self.program.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.program.environment,
                pass_fds=(self._lock,),
                start_new_session=True,
            )
        finally:
            os.close(output)

    def note_ready(self) -> None:
        """Records that the current process is ready."""
        self.time_to_ready, self.is_ready = self.age, True
        self.was_ready.set()

    async def wait(self) -> None:
        """Waits until no process is running."""
        if self._process:
            await self._process.wait()

    def kill_workers(self) -> None:
        """Kills what the last process has left in its group: the workers of a killed nginx would keep its port.

        While one of them lives, the kernel gives their group's number to no other process.
        """
        with suppress(ProcessLookupError):
            if self._process and not self.is_running:
                os.killpg(self.pid, signal.SIGKILL)

    @property
    def exit_status(self) -> int | None:
        """The exit status of the last process: negative if a signal killed it, None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def status(self) -> str:
        """The end of the last process in words, such as `exited with status 1`."""
        code = self.exit_status
        if code is None:
            return "is running"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"exited with status {code}"

    def send(self, number: signal.Signals) -> None:
        """Sends a signal. Also continues a stopped process (SIGSTOP), so that it can handle the signal.

        SIGKILL goes to its workers too, which would keep its port.
        """
        with suppress(ProcessLookupError):
            if self.is_running:
                (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)
                os.kill(self.pid, signal.SIGCONT)
