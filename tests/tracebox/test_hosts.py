"""tracebox serves only requests for itself, so that no web page can read it by DNS rebinding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.tracebox.running import Tracebox, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ("/", "/api/services", "/summaries", "/static/app.js", "/nothing")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tracebox() -> AsyncIterator[Tracebox]:
    async with serving(allowed_hosts="traces.example.com,192.0.2.1") as started:
        yield started


async def status(tracebox: Tracebox, host: str, path: str = "/api/services") -> int:
    async with tracebox.http.get(path, headers={"Host": host}) as response:
        return response.status


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:16686",
        "localhost.",
        "traces.localhost:16686",
        "127.0.0.1",
        "127.0.0.2:99",
        "[::1]:16686",
        "[::ffff:127.0.0.1]",
        "traces.example.com",
        "Traces.Example.com:443",
        "192.0.2.1",
        "",
    ],
)
async def test_a_request_for_this_machine_or_an_allowed_name_is_served(tracebox: Tracebox, host: str) -> None:
    assert await status(tracebox, host) == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:16686", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.2", "a b", "["],
)
async def test_a_request_for_another_host_is_421(tracebox: Tracebox, host: str, path: str) -> None:
    assert await status(tracebox, host, path) == 421
