"""The durations of the calls that a request makes to other services, such as for Server-Timing."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Timing:
    """How long one call to a service took, in milliseconds."""

    service: str
    method: str
    milliseconds: float


timings: ContextVar[list[Timing] | None] = ContextVar("meshkit_timings", default=None)
"""The timings of the current request, shared by the tasks that it starts. None outside of a request."""


@contextmanager
def timed(service: str, method: str) -> Iterator[None]:
    """Records the duration of the block, which is one call."""
    started = time.perf_counter()
    try:
        yield
    finally:
        if (recorded := timings.get()) is not None:
            recorded.append(Timing(service, method, (time.perf_counter() - started) * 1000))
