"""Many deadlines with one timer: `meshkit.client.expiry`."""

from __future__ import annotations

import asyncio
import math

from meshkit.client.expiry import Deadlines

SOON = 0.01


class Lookup:
    """Notes that it has expired."""

    def __init__(self, name: str, seconds: float, expired: list[str]) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.has_expired = asyncio.Event()
        self._name = name
        self._expired = expired

    def expire(self) -> None:
        """Notes it."""
        self._expired.append(self._name)
        self.has_expired.set()


async def test_each_lookup_expires_at_its_own_deadline_in_whatever_order_they_come() -> None:
    deadlines, expired = Deadlines(), list[str]()
    last, first, second = (Lookup(name, n * SOON, expired) for name, n in (("last", 3), ("first", 1), ("second", 2)))
    for lookup in (last, first, second, Lookup("never", math.inf, expired)):
        deadlines.add(lookup)
    await last.has_expired.wait()
    assert expired == ["first", "second", "last"]
    assert asyncio.get_running_loop().time() >= last.deadline


async def test_a_discarded_lookup_does_not_expire_and_the_others_still_do() -> None:
    deadlines, expired = Deadlines(), list[str]()
    finished, other = Lookup("finished", SOON, expired), Lookup("other", 2 * SOON, expired)
    deadlines.add(finished)
    deadlines.add(other)
    deadlines.discard(finished)
    await other.has_expired.wait()
    assert expired == ["other"]


async def test_a_lookup_expires_after_the_timer_found_none() -> None:
    deadlines, expired = Deadlines(), list[str]()
    finished = Lookup("finished", SOON, expired)
    deadlines.add(finished)
    deadlines.discard(finished)
    waiting = Lookup("waiting", 3 * SOON, expired)
    await asyncio.wait({asyncio.create_task(waiting.has_expired.wait())}, timeout=2 * SOON)
    deadlines.add(waiting)
    await waiting.has_expired.wait()
    assert expired == ["waiting"]
