"""Runs the tests of meshkit in asyncio's debug mode, because only its threads could touch the event loop."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(autouse=True)
async def _debug_mode() -> None:
    """Makes calls of the event loop from another thread raise. It doubles the CPU time, so other tests do without."""
    asyncio.get_running_loop().set_debug(True)
