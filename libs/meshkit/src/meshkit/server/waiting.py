"""Estimates how long a call waits for the unfinished calls ahead of it, from the calls that ended lately.

A call takes what it takes alone, and for each call ahead of it a certain time more: nothing if the server does all at
once, one whole turn if it does one after the other. The estimate is that time: the average wait of recent calls,
divided by the average number of calls ahead of them. It needs no knowledge of pools, locks and processors.
"""

from __future__ import annotations

WEIGHT = 1 / 16
"""The weight of one call in the moving averages, so some tens of calls replace an estimate."""
DOUBT = 0.5
"""Calls ahead that are added to their average, so that a few slow calls with almost none ahead prove nothing."""
FORGET_SECONDS = 10.0
"""An estimate is dropped when no call has ended for so long: what made calls slow may be over."""


class Waiting:
    """The estimate for the calls of one method. Without data nothing waits. All times are in seconds."""

    def __init__(self) -> None:
        self._alone: float | None = None
        self._wait = 0.0
        self._ahead = 0.0
        self._per_call = 0.0
        self._learned_at = 0.0

    def expected(self, ahead: int, now: float) -> float:
        """The wait of a call that arrives now, with so many calls ahead."""
        return 0.0 if now - self._learned_at > FORGET_SECONDS else ahead * self._per_call

    def learn(self, ahead: int, duration: float, now: float, *, finished: bool) -> None:
        """Learns from a call that has ended.

        Args:
            ahead: the calls that were unfinished when it began.
            duration: how long it took.
            now: the time of its end.
            finished: whether it returned. Otherwise it failed or was cancelled, and would have taken longer, so it can
                only raise the estimate.
        """
        if now - self._learned_at > FORGET_SECONDS:
            self._wait = self._ahead = self._per_call = 0.0
        if self._alone is None:
            self._alone = duration
        wait = max(duration - self._alone, 0.0) if ahead else 0.0
        if not finished and wait <= ahead * self._per_call:
            return
        if finished and (not ahead or duration < self._alone):
            self._alone += WEIGHT * (duration - self._alone)
        self._wait += WEIGHT * (wait - self._wait)
        self._ahead += WEIGHT * (ahead - self._ahead)
        self._per_call = self._wait / (self._ahead + DOUBT)
        self._learned_at = now
