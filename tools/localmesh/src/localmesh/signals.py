"""The signals that stop localmesh, slowly or at once."""

import asyncio
import signal
from collections.abc import Callable


class StopSignals:
    """Turns signals into events; its signal handlers stay until the process exits.

    The first SIGINT, SIGTERM or SIGHUP starts the stop. After that only SIGINT counts, which is the user's Ctrl-C: make
    and shells forward SIGTERM and SIGHUP to a process that already has them.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        """A second Ctrl-C: the children skip their drain."""
        self.kill = asyncio.Event()
        """A third Ctrl-C: the children are killed."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            loop.add_signal_handler(signal.SIGHUP, self.stop.set)

    def _interrupt(self) -> None:
        if not self.stop.is_set():
            self.stop.set()
        elif not self.hurry.is_set():
            self.hurry.set()
            self._report("skipping the drain (Ctrl-C again kills the processes)")
        else:
            self.kill.set()
