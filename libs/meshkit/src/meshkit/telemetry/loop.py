"""Measures the lag of the event loop: how long a due task waits before it runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

INTERVAL = 0.25
"""Seconds between two samples."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


async def watch_loop(meter: Meter) -> None:
    """Records how late a timer of the running event loop fires, in seconds, until cancelled."""
    lag = meter.create_histogram(
        "meshkit.event_loop.lag",
        unit="s",
        description="Delay of the event loop in running a due timer.",
        explicit_bucket_boundaries_advisory=BUCKETS,
    )
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL
        await asyncio.sleep(INTERVAL)
        lag.record(max(0.0, loop.time() - due))
