"""The time limits and pauses of localmesh."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Time limits and pauses, all in seconds."""

    start_notice: float = 10
    """Until the names of the children that are not ready are printed."""
    start: float = 60
    """After that notice, until a mesh that is not ready is stopped."""
    stop: float = 30
    """For a child to exit after SIGTERM. Longer than any service needs to drain, finish its calls and flush."""
    hurried_stop: float = 2
    """For a child to exit after a second Ctrl-C."""
    first_restart: float = 0.2
    """Between the exit of a child and its restart; doubled for each further exit within a short time."""
    last_restart: float = 1.0
    """The longest such pause. With the start and the reconnection of its callers, an outage is shorter than 5 s."""
    steady: float = 30
    """The age of a child from which its exit counts as the first again."""

    def restart(self, deaths: int) -> float:
        """The pause before a restart, after this number of exits in a row."""
        return min(self.first_restart * 2.0 ** min(deaths - 1, 10), self.last_restart)
