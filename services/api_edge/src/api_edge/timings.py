"""How long the calls to backends took: the clients write it down, and a protocol may show it to its callers."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """How long one call to a backend took, in milliseconds."""

    service: str
    method: str
    milliseconds: float


timings: ContextVar[list[Timing] | None] = ContextVar("api_edge_timings", default=None)
"""Where the calls of the request at hand note their times; shared by the tasks that it starts."""
