"""Refuses the calls that a server cannot finish in time, at once and without work: RESOURCE_EXHAUSTED with RetryInfo.

A server that accepts everything does work for callers that have given up, and then finishes nothing in time. So a call
is refused when `max_pending` calls are unfinished, or when those ahead of it will take longer than its deadline
(`meshkit.server.waiting`). A call with nothing ahead is always admitted, so an estimate that is too high corrects
itself. The log has one line when refusing begins and one when it ends.

A call is unfinished from when its request is here: a client that sends half of a request takes nobody's place. Streams
count, because they hold memory, but neither have nor make an estimate: how long one lasts says nothing about a queue.
Health checks and reflection have no concerns, so they are never refused.

https://sre.google/sre-book/handling-overload/
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from meshkit.deadline import remaining
from meshkit.errors import ResourceExhausted
from meshkit.server.waiting import Waiting

if TYPE_CHECKING:
    from meshkit.server.context import CallContext, Request, Response
    from meshkit.server.types import Behavior, Concern

log = logging.getLogger("meshkit.admission")

RETRY_AFTER, MAX_RETRY_AFTER = 1.0, 10.0
"""The least and the most seconds until a refused caller should retry; between them, what the calls ahead will take."""
QUIET_SECONDS = 5.0
"""Refusing has ended when no call was refused for so long."""


def admission(max_pending: int, *, quiet_seconds: float = QUIET_SECONDS) -> Concern:
    """Refuses a call to one server while `max_pending` are unfinished, or those ahead will outlast its deadline."""
    pending = _Pending(max_pending, quiet_seconds)

    def surround(_method: str, behavior: Behavior[Request, Response]) -> Behavior[Request, Response]:
        waiting = Waiting()

        async def respond(context: CallContext[Request, Response]) -> Response | None:
            call = _Call(pending, waiting)
            context.admit = call.begin
            try:
                response = await behavior(context)
                call.returned = True
            finally:
                call.end()
            return response

        return respond

    return surround


class _Pending:
    """The unfinished calls of a server.

    Attributes:
        count: how many there are.
    """

    def __init__(self, most: int, quiet_seconds: float) -> None:
        self.count = 0
        self._most = most
        self._refusals = _Refusals(quiet_seconds)

    def check(self, wait: float) -> None:
        """Raises ResourceExhausted if a call that would wait so many seconds for the others is refused."""
        if self.count >= self._most:
            self._refuse("too many calls are unfinished", wait)
        left = remaining()
        if left is not None and wait > left:
            self._refuse("the calls ahead will outlast the deadline", wait)

    def _refuse(self, reason: str, wait: float) -> None:
        self._refusals.count(f"{reason}: {self.count} unfinished, which take about {wait:.1f} s")
        raise ResourceExhausted(f"{reason}; retry later", retry_after=min(max(wait, RETRY_AFTER), MAX_RETRY_AFTER))


class _Call:
    """One call, which is unfinished from `begin` to `end`.

    Attributes:
        returned: whether its handler returned.
    """

    __slots__ = ("_ahead", "_pending", "_start", "_waiting", "returned")

    def __init__(self, pending: _Pending, waiting: Waiting) -> None:
        self._pending = pending
        self._waiting: Waiting | None = waiting
        self._ahead: int | None = None
        self._start = 0.0
        self.returned = False

    def begin(self, *, streams: bool) -> None:
        """Begins the call when its request is here. Raises ResourceExhausted if it is refused."""
        if streams:
            self._waiting = None
        self._start, ahead = time.monotonic(), self._pending.count
        self._pending.check(self._waiting.expected(ahead, self._start) if self._waiting else 0.0)
        self._pending.count += 1
        self._ahead = ahead

    def end(self) -> None:
        """Ends the call, if it was admitted."""
        if self._ahead is None:
            return
        self._pending.count -= 1
        if self._waiting:
            now = time.monotonic()
            self._waiting.learn(self._ahead, now - self._start, now, finished=self.returned)


class _Refusals:
    """Logs when refusing begins, and how many calls were refused when it ends, however many there are."""

    def __init__(self, quiet_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._number = 0
        self._first = self._last = 0.0

    def count(self, reason: str) -> None:
        """Counts one refused call."""
        self._number += 1
        self._last = time.monotonic()
        if self._number == 1:
            self._first = self._last
            log.warning("refusing calls: %s", reason)
            self._look_again(self._quiet_seconds)

    def _look_again(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        if (left := self._last + self._quiet_seconds - time.monotonic()) > 0:
            self._look_again(left)
            return
        log.warning("admitting all calls again: refused %d in %.1f s", self._number, self._last - self._first)
        self._number = 0
