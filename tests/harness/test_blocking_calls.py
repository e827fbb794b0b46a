"""A blocking call of our code in an event loop raises an error, in tests and in the fixtures that they share."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio
from blockbuster import BlockingError

import meshkit

SLEEP = compile("import time; time.sleep(0)", Path(meshkit.__file__).with_name("sleeping.py"), "exec")
"""Code that seems to be in a module of meshkit."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def error_in_a_fixture() -> Exception | None:
    try:
        exec(SLEEP, {})  # noqa: S102
    except BlockingError as error:
        return error
    return None


async def test_a_blocking_call_in_a_test_raises() -> None:
    with pytest.raises(BlockingError):
        exec(SLEEP, {})  # noqa: S102


async def test_a_blocking_call_in_a_shared_fixture_raises(error_in_a_fixture: Exception | None) -> None:
    assert error_in_a_fixture
