"""What holds for the tests of meshkit, where a thread could touch the event loop: it runs in debug mode."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(autouse=True)
async def _debug_mode() -> None:
    """A call of the event loop from another thread raises, as it does nowhere else: it takes twice the time."""
    asyncio.get_running_loop().set_debug(True)
