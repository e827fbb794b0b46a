"""How long the calls of a request to other services took: who makes them notes it, and a protocol may show it."""

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
"""Where the calls of the request at hand note their times; shared by the tasks that it starts."""


@contextmanager
def timed(service: str, method: str) -> Iterator[None]:
    """Notes how long the block takes, which is one call."""
    started = time.perf_counter()
    try:
        yield
    finally:
        if (noted := timings.get()) is not None:
            noted.append(Timing(service, method, (time.perf_counter() - started) * 1000))
