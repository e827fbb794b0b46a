"""The remaining budget of the request at hand, as a context variable.

The edge opens a budget for each request, a server interceptor opens one for each RPC from its gRPC deadline, and
the channel gives every outgoing call `min(its limit, remaining - RESERVE)`. So time is handed down the chain: no
backend works longer than its caller waits (gRPC in Python does not propagate deadlines by itself).
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RESERVE = 0.02
"""Seconds kept back from every outgoing call, so that its timeout can still be reported upwards."""

FLOOR = 0.005
"""Seconds below which a server does not start to work: the answer could not arrive in time."""

_deadline: ContextVar[float | None] = ContextVar("meshkit_deadline", default=None)


def remaining() -> float | None:
    """Seconds until the deadline of the request at hand, negative when past; None without a deadline."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - time.monotonic()


class budget:  # noqa: N801 - used like a function; contextlib's own kind costs three times as much
    """Opens a budget of at most `seconds` from now; a budget around it that ends earlier stays in force."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._seconds
        outer = _deadline.get()
        self._token = _deadline.set(deadline if outer is None else min(deadline, outer))

    def __exit__(self, *_error: object) -> None:
        _deadline.reset(self._token)


@contextmanager
def own_budget(seconds: float) -> Iterator[None]:
    """Opens a budget of `seconds`, independent of the budget around it: to undo what an exceeded budget left behind."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def call_timeout(limit: float) -> float:
    """Seconds that a call made now may take: its own limit, or what remains less RESERVE if that is shorter.

    Negative when nothing useful remains: gRPC ends such a call at once, with DEADLINE_EXCEEDED, and sends nothing.
    """
    left = remaining()
    if left is None:
        return limit
    return -1 if left - RESERVE < FLOOR else min(limit, left - RESERVE)
