"""The signals that ask localmesh to stop, and how urgently."""

import asyncio
import signal
from collections.abc import Callable


class StopSignals:
    """Turns signals into events; the loop's handlers stay until the process ends.

    The first of SIGINT, SIGTERM and SIGHUP begins the stop. After that only SIGINT counts, the user's own Ctrl-C:
    make and shells pass SIGTERM and SIGHUP on to a process that has already received them.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        """The user skips the waiting."""
        self.kill = asyncio.Event()
        """The user waits no longer at all."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(signal.SIGHUP, self.stop.set)

    def _interrupted(self) -> None:
        if not self.stop.is_set():
            self.stop.set()
        elif not self.hurry.is_set():
            self.hurry.set()
            self._tell("hurrying (Ctrl-C kills)")
        else:
            self.kill.set()
