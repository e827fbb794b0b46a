"""One process of the mesh, through all its lives."""

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
from localmesh.mesh import Program

LAUNCH = (sys.executable, "-I", "-S", str(Path(launch.__file__)))


class Child:
    """A program, its present process if it has one, and its log.

    The process leads a session of its own, so that it never sees a signal of the terminal, and inherits the
    descriptor `lock`. It is `launch` only for a moment: then it is the program itself, a direct child.
    """

    def __init__(self, program: Program, log: Log, lock: int) -> None:
        self.program = program
        self.log = log
        self.was_ready = asyncio.Event()
        """Set once it has been ready, and set for good."""
        self.is_ready = False
        """Whether the present or last process has been ready."""
        self.saved = asyncio.Event()
        """Set when its sources have changed since the present or last process was started."""
        self.time_to_ready = 0.0
        """Seconds from the start of the present process until it was ready."""
        self._lock = lock
        self._process: asyncio.subprocess.Process | None = None
        self._started = 0.0

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def pid(self) -> int:
        """The process id of the present or last process, 0 before the first."""
        return self._process.pid if self._process else 0

    @property
    def age(self) -> float:
        """Seconds since the present or last process was started."""
        return time.monotonic() - self._started

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts a process.

        Raises:
            OSError: the system has no room for a process or its log.
        """
        output = self.log.open()
        try:
            self._started, self.is_ready = time.monotonic(), False
            self.saved.clear()
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
        """Notes that the present process is ready."""
        self.time_to_ready, self.is_ready = self.age, True
        self.was_ready.set()

    async def ended(self) -> None:
        """Returns when there is no process that has not ended."""
        if self._process:
            await self._process.wait()

    @property
    def exit_status(self) -> int | None:
        """The exit status of the last process, negative if a signal ended it; None if it has not ended."""
        return self._process.returncode if self._process else None

    @property
    def status(self) -> str:
        """How the last process ended, in words."""
        code = self.exit_status
        if code is None:
            return "has not ended"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit status {code}" if code else "ended well"

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; a process that is stopped (SIGSTOP) is continued, so that it can act on it."""
        with suppress(ProcessLookupError):
            if self.is_running:
                os.kill(self.pid, number)
                os.kill(self.pid, signal.SIGCONT)
