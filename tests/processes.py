"""Waits for processes that are not children of the test."""

import time
from collections.abc import Sequence

import psutil

INTERVAL = 0.02  # seconds between two checks


def left_of(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits until all processes have exited; returns those that still run after `seconds`.

    A zombie counts as exited: the first process of many containers never reaps the orphans that it inherits.
    """
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(INTERVAL)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
