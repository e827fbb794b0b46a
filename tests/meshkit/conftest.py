"""Makes a call of the event loop from another thread raise in the tests of meshkit, because only its threads could."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.meshkit.notes import write_migrations
from tests.thread_checks import check_threads

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _thread_checks(request: pytest.FixtureRequest) -> None:
    """Adds the checks; a test without an event loop gets none."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_checked_loop")


@pytest.fixture
async def _checked_loop() -> None:
    check_threads(asyncio.get_running_loop())


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """The revisions of the notes."""
    return write_migrations(tmp_path)
