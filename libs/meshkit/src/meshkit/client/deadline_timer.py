"""Deadlines of many lookups with one timer: to start and cancel one of the event loop takes 3 µs."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol


class Expiring(Protocol):
    """What has a deadline."""

    @property
    def deadline(self) -> float:
        """A time of the event loop's clock; infinite without a deadline."""
        ...

    def expire(self) -> None:
        """Is called at the deadline."""


class DeadlineTimer:
    """Calls `expire` of each lookup at its deadline, unless it has been discarded.

    The timer is that of the earliest deadline. It runs on when its lookup is discarded, and then sets itself for the
    others. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._lookups: set[Expiring] = set()
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def add(self, lookup: Expiring) -> None:
        """Expires a lookup at its deadline."""
        if lookup.deadline < math.inf:
            self._lookups.add(lookup)
            self._wait_for(lookup.deadline)

    def discard(self, lookup: Expiring) -> None:
        """Does not expire a lookup."""
        self._lookups.discard(lookup)

    def _wait_for(self, deadline: float) -> None:
        if deadline >= self._next:
            return
        if self._timer:
            self._timer.cancel()
        self._next = deadline
        self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        now = max(self._next, asyncio.get_running_loop().time())  # a timer may be early, by the clock's resolution
        self._next, self._timer = math.inf, None
        for lookup in [lookup for lookup in self._lookups if lookup.deadline <= now]:
            self.discard(lookup)
            lookup.expire()
        self._wait_for(min((lookup.deadline for lookup in self._lookups), default=math.inf))
