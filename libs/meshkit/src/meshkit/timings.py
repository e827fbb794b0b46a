"""The durations of the calls that a request makes to other services, such as for Server-Timing."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import NamedTuple


class Timing(NamedTuple):
    """How long one call to a service took, in milliseconds."""

    service: str
    method: str
    milliseconds: float


timings: ContextVar[list[Timing] | None] = ContextVar("meshkit_timings", default=None)
"""The timings of the current request, shared by the tasks that it starts. None outside of a request."""


class timed:  # noqa: N801 - used like a function; contextlib's own kind costs three times as much
    """Records the duration of the block, which is one call."""

    __slots__ = ("_method", "_service", "_start")

    def __init__(self, service: str, method: str) -> None:
        self._service, self._method = service, method

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        if (recorded := timings.get()) is not None:
            recorded.append(Timing(self._service, self._method, (time.perf_counter() - self._start) * 1000))
