"""/docs works without the internet: everything the page needs comes from the edge."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from tests.browser import CHROMIUM, FLAGS, needs_browser
from tests.edge.mesh import Mesh, mesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DUMP = ["--disable-component-update", "--disable-sync", "--virtual-time-budget=15000", "--dump-dom"]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path) as running:
        yield running


async def test_the_page_needs_nothing_from_elsewhere(shop: Mesh) -> None:
    page = await shop.get("/docs")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "//" not in re.sub(r"(?m)^\s*<!--.*-->$", "", page.text)
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(parts) == 3
    for part in parts:
        async with shop.http.get(shop.url + part) as answer:
            assert answer.status == 200


async def test_what_is_not_an_asset_is_a_problem(shop: Mesh) -> None:
    answer = await shop.get("/docs/assets/nothing.js")
    assert (answer.status, answer.body["reason"]) == (404, "UNKNOWN_ROUTE")


@pytest.mark.parametrize("wanted", ["bytes=0-5", "bytes=999999999-", "bytes=abc", "x"])
async def test_an_asset_is_answered_whole_whatever_part_is_wanted(shop: Mesh, wanted: str) -> None:
    path = "/docs/assets/swagger-ui.css"
    assert (await shop.get(path, headers={"Range": wanted})).text == (await shop.get(path)).text


@needs_browser
async def test_a_browser_without_internet_shows_every_operation(shop: Mesh, tmp_path: Path) -> None:
    nowhere_else = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    browser = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        *FLAGS,
        *DUMP,
        nowhere_else,
        f"--user-data-dir={tmp_path / 'profile'}",
        f"{shop.url}/docs",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    shown, _ = await browser.communicate()
    operations = re.findall(r'class="opblock opblock-(get|post|delete)"', shown.decode())
    assert sorted(operations) == ["delete", "get", "get", "get", "post", "post"]
