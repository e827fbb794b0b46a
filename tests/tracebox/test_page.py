"""The page of tracebox in a real browser, as narrow as a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser import Tab, browsing, needs_browser
from tests.tracebox.running import Tracebox, running
from tests.tracebox.spans import export, span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = [needs_browser, pytest.mark.timeout(60)]

MARGIN = 390 - 12  # pixels to the right end of what a page shows
TOO_WIDE = "document.documentElement.scrollWidth > innerWidth || innerWidth > 390"
NAME = "aiomesh.warehouse.v1.WarehouseService/ReserveStockOfManyLines"
SERVICE = "<b>warehouse</b>-of-all-the-tea-in-china-and-some-of-the-cups-to-drink-it-from-and-the-pots"


def right_end(selector: str) -> str:
    """How far to the right the elements reach, in pixels."""
    return f"Math.max(...[...document.querySelectorAll('{selector}')].map((e) => e.getBoundingClientRect().right))"


@pytest.fixture
async def tracebox() -> AsyncIterator[Tracebox]:
    async with running() as started:
        yield started


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with browsing(tmp_path / "profile") as opened:
        yield opened


def long_names() -> ExportTraceServiceRequest:
    return export(span(0xA, 1, NAME, at=(0, 10)), span(0xA, 2, NAME, at=(1, 9), parent=1, error="no"), service=SERVICE)


async def test_long_names_do_not_make_the_list_scroll_sideways(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(long_names())
    await tab.show(f"{tracebox.url}/search?service={SERVICE}", until="document.querySelector('.trace-row')")
    assert await tab.value("document.querySelector('[name=operation]').options.length") == 2
    assert await tab.value(TOO_WIDE) is False
    assert await tab.value(right_end(".title, .chip")) <= MARGIN
    assert await tab.value("document.querySelector('.title b').textContent") == SERVICE
    assert await tab.value("document.querySelectorAll('main b').length") == 1, "a name is text"


async def test_a_phone_that_is_turned_upright_does_not_make_the_list_scroll_sideways(
    tracebox: Tracebox, tab: Tab
) -> None:
    await tracebox.export(export(*(span(number, 1, "GET /") for number in range(1, 51))))
    await tab.resize(844)
    await tab.show(f"{tracebox.url}/search", until="document.querySelectorAll('.trace-row').length === 50")
    await tab.value("document.getElementById('list').lastChild.scrollIntoView()")
    await tab.drawn()
    await tab.resize(390)
    await tab.drawn()
    assert await tab.value(TOO_WIDE) is False


async def test_long_names_do_not_make_a_trace_scroll_sideways(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(long_names())
    await tab.show(f"{tracebox.url}/trace/a", until="document.querySelectorAll('.span-row').length === 2")
    assert await tab.value(TOO_WIDE) is False
    assert await tab.value(right_end(".toolbar > *, .chip")) <= MARGIN


async def test_the_details_of_a_span_show_nothing_that_it_has_not(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(export(span(0xA, 1, "plain")))
    await tab.show(f"{tracebox.url}/trace/a#0000000000000001", until="document.querySelector('#detail h2')")
    parts = "[...document.getElementById('detail').childNodes].map((part) => part.nodeName)"
    assert await tab.value(parts) == ["HEADER", "DL"]
