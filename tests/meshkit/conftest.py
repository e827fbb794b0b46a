"""The tests of meshkit, the one package whose threads could touch the event loop, run in asyncio's debug mode."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(autouse=True)
async def _debug_mode() -> None:
    """Makes a call of the event loop from a wrong thread raise. It doubles the CPU: other tests go without."""
    asyncio.get_running_loop().set_debug(True)
