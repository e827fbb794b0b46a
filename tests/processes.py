"""Processes that are not children of the test, and so can only be looked at."""

import time
from collections.abc import Sequence

import psutil

INTERVAL = 0.02  # seconds between two looks


def left_of(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits until all have ended; those that have not after `seconds`.

    A zombie has ended: many a container's first process never asks how the orphans that it inherits did.
    """
    give_up = time.monotonic() + seconds
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < give_up:
        time.sleep(INTERVAL)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
