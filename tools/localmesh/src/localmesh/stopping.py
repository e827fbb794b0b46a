"""Stops one child: by its own signal, by repeated SIGTERM, or by SIGKILL."""

import asyncio
import signal
import time
from collections.abc import Coroutine

from localmesh.child import Child
from localmesh.patience import Patience
from localmesh.signals import StopSignals

HURRY_INTERVAL = 0.25  # seconds between two SIGTERMs to a child that must skip its drain


async def stop(child: Child, signals: StopSignals, patience: Patience) -> bool:
    """Stops a child, and kills it if it takes too long or the user asks for it; returns whether it was killed."""
    if not await _exits(child, _stop(child), patience.stop, signals.hurry) and signals.hurry.is_set():
        await _hurry(child, signals.kill, patience)
    return await _kill(child)


async def _stop(child: Child) -> None:
    await child.program.drain()
    child.send(child.program.stop_signal)
    await child.wait()


async def replace(child: Child, patience: Patience) -> None:
    """Stops a child without its drain: the user has saved a file and waits for the restart."""
    await _hurry(child, asyncio.Event(), patience)
    await _kill(child)


async def _hurry(child: Child, kill: asyncio.Event, patience: Patience) -> None:
    """Sends SIGTERM repeatedly. The second one makes a service skip its drain; two at the same time count as one."""
    deadline = time.monotonic() + patience.hurried_stop
    while child.is_running and not kill.is_set() and time.monotonic() < deadline:
        child.send(signal.SIGTERM)
        await _exits(child, child.wait(), HURRY_INTERVAL, kill)


async def _kill(child: Child) -> bool:
    if not child.is_running:
        return False
    child.send(signal.SIGKILL)
    await child.wait()
    return True


async def _exits(child: Child, stop: Coroutine[None, None, None], limit: float, interrupt: asyncio.Event) -> bool:
    """Waits for `stop`, at most `limit` seconds or until `interrupt` is set; returns whether the child has exited."""
    waits = [asyncio.create_task(stop), asyncio.create_task(interrupt.wait())]
    try:
        await asyncio.wait(waits, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return not child.is_running
