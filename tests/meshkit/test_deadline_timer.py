"""Many deadlines with one timer: `meshkit.client.deadline_timer`."""

from __future__ import annotations

import asyncio
import math

from meshkit.client.deadline_timer import DeadlineTimer

SOON, LATER = 0.01, 60.0


class Lookup:
    """Notes that it has expired."""

    def __init__(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.has_expired = asyncio.Event()

    def expire(self) -> None:
        """Notes it."""
        self.has_expired.set()


async def test_a_lookup_expires_before_one_that_came_earlier_and_has_more_time() -> None:
    timer = DeadlineTimer()
    patient, endless, hasty = Lookup(LATER), Lookup(math.inf), Lookup(SOON)
    for lookup in (patient, endless, hasty):
        timer.add(lookup)
    await hasty.has_expired.wait()
    assert not patient.has_expired.is_set()
    assert not endless.has_expired.is_set()


async def test_the_timer_goes_on_to_the_next_deadline() -> None:
    timer = DeadlineTimer()
    lookups = [Lookup(number * SOON) for number in (3, 1, 2)]
    for lookup in lookups:
        timer.add(lookup)
    await asyncio.gather(*(lookup.has_expired.wait() for lookup in lookups))


async def test_a_discarded_lookup_does_not_expire_and_the_next_one_does() -> None:
    timer, finished, other = DeadlineTimer(), Lookup(SOON), Lookup(2 * SOON)
    timer.add(finished)
    timer.add(other)
    timer.discard(finished)
    await other.has_expired.wait()
    assert not finished.has_expired.is_set()


async def test_a_lookup_expires_after_the_timer_found_none() -> None:
    timer, finished, timer_ran = DeadlineTimer(), Lookup(SOON), asyncio.Event()
    timer.add(finished)
    timer.discard(finished)
    asyncio.get_running_loop().call_at(finished.deadline + SOON, timer_ran.set)
    await timer_ran.wait()
    lookup = Lookup(SOON)
    timer.add(lookup)
    await lookup.has_expired.wait()
    assert not finished.has_expired.is_set()
