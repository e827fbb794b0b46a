"""Ends one child: politely, in a hurry, or by force."""

import asyncio
import signal
import time

from localmesh.child import Child
from localmesh.patience import Patience
from localmesh.signals import StopSignals

HURRY_INTERVAL = 0.25  # seconds between two SIGTERMs to a child that is hurried


async def stop(child: Child, signals: StopSignals, patience: Patience) -> bool:
    """Asks a child to end, and kills it when it takes too long or the user waits no longer; whether it was killed."""
    child.send(signal.SIGTERM)
    if not await _ends(child, patience.stop, signals.hurry) and signals.hurry.is_set():
        await _hurry(child, signals.kill, patience)
    return await _kill(child)


async def replace(child: Child, patience: Patience) -> None:
    """Ends a child without waiting for its drain: nobody waits for it but the user who has saved a file."""
    await _hurry(child, asyncio.Event(), patience)
    await _kill(child)


async def _hurry(child: Child, impatience: asyncio.Event, patience: Patience) -> None:
    """Sends SIGTERM again: services skip their own waiting at the second, and two at once would count as one."""
    give_up = time.monotonic() + patience.hurried_stop
    while child.is_running and not impatience.is_set() and time.monotonic() < give_up:
        child.send(signal.SIGTERM)
        await _ends(child, HURRY_INTERVAL, impatience)


async def _kill(child: Child) -> bool:
    if not child.is_running:
        return False
    child.send(signal.SIGKILL)
    await child.ended()
    return True


async def _ends(child: Child, limit: float, impatience: asyncio.Event) -> bool:
    """Waits for the end of a child, for `limit` seconds at most or until the user loses patience."""
    waits = [asyncio.create_task(child.ended()), asyncio.create_task(impatience.wait())]
    try:
        await asyncio.wait(waits, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return not child.is_running
