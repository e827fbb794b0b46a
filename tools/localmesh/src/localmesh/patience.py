"""How long localmesh waits for what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """All in seconds."""

    start_notice: float = 10
    """Until the user is told which children are not ready yet."""
    start: float = 60
    """After that notice, until a mesh that is not ready is given up."""
    stop: float = 30
    """For a child to end after SIGTERM; longer than any service takes to drain, to finish its calls and to flush."""
    hurried_stop: float = 2
    """The same when the user is in a hurry."""
    first_restart: float = 0.2
    """Between a child's death and its next start; doubled for each death that follows soon."""
    last_restart: float = 1.0
    """The most of it: with a start and its callers' reconnection it stays below 5 s, however often it died."""
    steady: float = 30
    """The age from which a death counts as the first again."""

    def restart(self, deaths: int) -> float:
        """The pause after so many deaths in a row."""
        return min(self.first_restart * 2.0 ** min(deaths - 1, 10), self.last_restart)
