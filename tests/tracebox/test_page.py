"""The page of tracebox in a real browser with the width of a phone."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.browser import Browser, Tab, needs_browser, running_browser
from tests.tracebox.running import Tracebox, serving
from tests.tracebox.spans import T0, Plain, export, span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = [needs_browser, pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

MARGIN = 390 - 12  # the right end of the content, in pixels
TOO_WIDE = "document.documentElement.scrollWidth > innerWidth || innerWidth > 390"
NAME = "aiomesh.warehouse.v1.WarehouseService/ReserveStockOfManyLines"
SERVICE = "<b>warehouse</b>-of-all-the-tea-in-china-and-some-of-the-cups-to-drink-it-from-and-the-pots"


def right_end(selector: str) -> str:
    """An expression for the right end of the elements, in pixels."""
    return f"Math.max(...[...document.querySelectorAll('{selector}')].map((e) => e.getBoundingClientRect().right))"


@pytest_asyncio.fixture(loop_scope="module")
async def tracebox() -> AsyncIterator[Tracebox]:
    async with serving() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    async with running_browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser) -> AsyncIterator[Tab]:
    async with browser.tab() as opened:
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


async def test_the_list_does_not_scroll_sideways_after_a_phone_is_turned_upright(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(export(*(span(number, 1, "GET /") for number in range(1, 51))))
    await tab.resize(844)
    await tab.show(f"{tracebox.url}/search", until="document.querySelectorAll('.trace-row').length === 50")
    await tab.value("document.getElementById('list').lastChild.scrollIntoView()")
    await tab.wait_for_redraw()
    await tab.resize(390)
    await tab.wait_for_redraw()
    assert await tab.value(TOO_WIDE) is False


async def test_long_names_do_not_make_a_trace_scroll_sideways(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(long_names())
    await tab.show(f"{tracebox.url}/trace/a", until="document.querySelectorAll('.span-row').length === 2")
    assert await tab.value(TOO_WIDE) is False
    assert await tab.value(right_end(".toolbar > *, .chip")) <= MARGIN


async def test_the_details_of_a_span_have_no_empty_sections(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(export(span(0xA, 1, "plain")))
    await tab.show(f"{tracebox.url}/trace/a#0000000000000001", until="document.querySelector('#detail h2')")
    parts = "[...document.getElementById('detail').childNodes].map((part) => part.nodeName)"
    assert await tab.value(parts) == ["HEADER", "DL"]


COMMON_NAMES = ("inventory", "reviews", "orders", "payments", "shipping", "users")
RED, AMBER = 25, 75  # degrees of oklch
CHIPS = (
    "[...document.querySelectorAll('.legend .chip')].map((c) => [c.firstChild.data, c.style.getPropertyValue('--h')])"
)
BARS = "[...document.querySelectorAll('.bar')].map((bar) => getComputedStyle(bar).backgroundColor)"


def hue_difference(one: float, other: float) -> float:
    """The degrees between two hues."""
    return min((one - other) % 360, (other - one) % 360)


async def hues(tab: Tab, url: str, services: int) -> dict[str, float]:
    await tab.show(url, until=f"document.querySelectorAll('.legend .chip').length === {services}")
    return {name: float(hue) for name, hue in await tab.value(CHIPS)}


async def test_a_service_keeps_its_colour_when_other_services_appear(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(export(span(0xA, 1), service="inventory"))
    alone = await hues(tab, f"{tracebox.url}/trace/a", 1)
    for number in range(20):
        await tracebox.export(export(span(0xA, 2 + number, parent=1), service=f"a{number}"))
    assert (await hues(tab, f"{tracebox.url}/trace/a", 21))["inventory"] == alone["inventory"]


async def test_common_service_names_have_different_colours_that_do_not_look_like_errors(
    tracebox: Tracebox, tab: Tab
) -> None:
    for number, service in enumerate(COMMON_NAMES, start=1):
        await tracebox.export(export(span(0xA, number), service=service))
    found = await hues(tab, f"{tracebox.url}/trace/a", len(COMMON_NAMES))
    assert min(hue_difference(one, other) for one, other in combinations(found.values(), 2)) > 25
    assert min(hue_difference(hue, error) for hue in found.values() for error in (RED, AMBER)) > 35
    for scheme in ("light", "dark"):
        await tab.prefer(scheme)
        bars = [re.findall("[0-9.]+", bar) for bar in await tab.value(BARS)]
        assert sorted(float(hue) for _, _, hue in bars) == sorted(found.values())
        assert {float(lightness) > 0.6 and float(chroma) > 0.1 for lightness, chroma, _ in bars} == {True}


async def test_a_statement_uses_the_whole_width_of_a_phone_without_its_own_scroll_bar(
    tracebox: Tracebox, tab: Tab
) -> None:
    statement = f"SELECT {', '.join(f'stock.column_{number}' for number in range(60))}\nFROM stock"
    await tracebox.export(export(span(0xA, 1, tags={"db.query.text": statement, "db.namespace": "shop"})))
    await tab.show(f"{tracebox.url}/trace/a#0000000000000001", until="document.querySelector('#detail pre')")
    assert await tab.value("document.querySelector('#detail pre').textContent") == statement
    assert await tab.value("document.querySelector('#detail pre').clientWidth") > 330
    for axis in ("Width", "Height"):
        assert await tab.value(f"(({{scroll{axis}: a, client{axis}: b}}) => a === b)(document.querySelector('pre'))")
    assert await tab.value(TOO_WIDE) is False


ENDINGS: list[tuple[dict[str, Plain], str | None, str, str]] = [
    ({"http.response.status_code": 404}, None, "warn", "404 client error"),
    ({"http.response.status_code": 499}, None, "warn", "499 cancelled"),
    ({"http.status_code": 422}, "no", "warn", "422 client error"),
    ({"rpc.response.status_code": "NOT_FOUND"}, "", "warn", "NOT_FOUND client error"),
    ({"rpc.response.status_code": "CANCELLED"}, "", "warn", "cancelled"),
    ({"rpc.grpc.status_code": 9}, "", "warn", "9 client error"),
    ({"error.type": "asyncio.exceptions.CancelledError"}, "", "warn", "cancelled"),
    ({"http.response.status_code": 503}, "", "bad", "503 error"),
    ({"rpc.response.status_code": "UNAVAILABLE"}, "", "bad", "UNAVAILABLE error"),
    ({}, "broken", "bad", "error"),
    ({"http.response.status_code": 200}, None, "", "200"),
    ({"rpc.response.status_code": "NOT_FOUND"}, None, "warn", "NOT_FOUND client error"),
]


async def test_a_client_error_has_a_different_colour_and_text_than_a_server_error(tracebox: Tracebox, tab: Tab) -> None:
    for number, (tags, error, _, _) in enumerate(ENDINGS, start=1):
        await tracebox.export(export(span(number, 1, str(number), tags=tags, error=error, at=(-number, 1))))
    await tab.show(f"{tracebox.url}/search", until=f"document.querySelectorAll('.trace-row').length === {len(ENDINGS)}")
    row = "[row.className.split(' ')[1], row.querySelector('.badge')?.textContent ?? '']"
    found = await tab.value(f"[...document.querySelectorAll('.trace-row')].map((row) => {row})")
    badges = [(shade, {"warn": words, "bad": "1 error"}.get(shade, "")) for _, _, shade, words in ENDINGS]
    assert [tuple(row) for row in found] == badges
    for number, (_, _, shade, words) in enumerate(ENDINGS, start=1):
        heading = f"document.querySelector('#detail h2')?.textContent === '{number}'"
        await tab.show(f"{tracebox.url}/trace/{number:x}#0000000000000001", until=heading)
        status = "[...document.querySelectorAll('#facts div')].find((fact) => fact.firstChild.textContent === 'Status')"
        assert await tab.value(f"{status}.lastChild.textContent") == words
        notice = await tab.value("document.querySelector('#detail .notice b')?.textContent ?? ''")
        assert notice.lower() == (words.lower() if shade else "")
        mark = "document.querySelector('.span-row .mark')?.className ?? 'mark '"
        assert await tab.value(mark) == f"mark {shade}"


async def test_errors_only_finds_only_traces_with_a_server_error(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(export(span(0xA, 1, "client's", tags={"rpc.response.status_code": "NOT_FOUND"}, error="")))
    await tracebox.export(export(span(0xB, 1, "server's", tags={"rpc.response.status_code": "INTERNAL"}, error="")))
    await tab.show(f"{tracebox.url}/search?errors=true", until="document.querySelector('.trace-row')")
    assert await tab.value("[...document.querySelectorAll('.operation')].map((e) => e.textContent)") == ["server's"]


async def test_the_page_says_after_ten_seconds_that_a_missing_trace_may_be_gone(tracebox: Tracebox, tab: Tab) -> None:
    looking = "document.getElementById('looking').textContent"
    await tab.show(f"{tracebox.url}/trace/c0ffee", until=f"{looking}.includes('Waiting')")
    await tab.skip(15)
    await tab.wait(f"{looking}.includes('may be gone')")
    text = await tab.value(looking)
    assert all(reason in text for reason in ("not sampled", "evicted", "id is wrong", "c0ffee"))


async def test_a_trace_that_arrives_late_is_shown(tracebox: Tracebox, tab: Tab) -> None:
    await tab.show(f"{tracebox.url}/trace/a", until="document.querySelector('#looking code')")
    await tracebox.export(export(span(0xA, 1, "late")))
    await tab.wait("document.querySelector('.span-row')")


FOUND = "[...document.querySelectorAll('.trace-row .operation')].map((e) => e.textContent).join()"
PROBLEM = "document.getElementById('problem').hidden ? '' : document.getElementById('problem').textContent"
ADDRESS = "Object.fromEntries(new URLSearchParams(location.search))"


async def search(tab: Tab, **fields: str) -> None:
    """Fills in the form and presses the button."""
    form = "document.getElementById('filters')"
    for name, text in fields.items():
        field = f"{form}.elements['{name}']"
        await tab.value(
            f"{field}.value = {json.dumps(text)}; {field}.dispatchEvent(new Event('change', {{bubbles: true}}))"
        )
    await tab.value(f"{form}.requestSubmit()")


async def reload_in_another_tab(tab: Tab) -> None:
    """Opens the address of the page again, like a person who gets the link."""
    address = await tab.value("location.href")
    await tab.show("about:blank", until="location.href === 'about:blank'")
    await tab.show(address, until="document.querySelector('.trace-row')")


async def test_a_search_by_tags_stays_in_the_address(tracebox: Tracebox, tab: Tab) -> None:
    tags: dict[str, dict[str, Plain]] = {
        "both": {"http.response.status_code": 404, "url.query": "sku=A&sku=B"},
        "one": {"http.response.status_code": 404, "url.query": "sku=A"},
        "other": {"http.response.status_code": 200},
        "quoted": {"db.query.text": 'SELECT "a" = ?'},
    }
    for number, (name, attributes) in enumerate(tags.items(), start=1):
        await tracebox.export(export(span(number, 1, name, tags=attributes, at=(-number, 0))))
    await tab.show(f"{tracebox.url}/search", until=f"{FOUND} === 'both,one,other,quoted'")
    for text, names in {
        "http.response.status_code=404": "both,one",
        "http.response.status_code=404  url.query=sku=A&sku=B": "both",
        'db.query.text="SELECT \\"a\\" = ?"': "quoted",
        '{"http.response.status_code": "200"}': "other",
    }.items():
        await search(tab, tags=text)
        await tab.wait(f"{FOUND} === '{names}'")
        await reload_in_another_tab(tab)
        assert await tab.value(FOUND) == names
        assert await tab.value("document.getElementById('filters').elements.tags.value.split('=').length") > 1
        parameter = json.loads((await tab.value(ADDRESS))["tags"])
        query = urlencode({"service": "shop", "start": 0, "tags": json.dumps(parameter)})
        traces = await tracebox.data(f"/api/traces?{query}")
        assert [trace["spans"][0]["operationName"] for trace in reversed(traces)] == names.split(",")


async def test_a_search_by_time_stays_in_the_address(tracebox: Tracebox, tab: Tab) -> None:
    for number, seconds in enumerate((0, 60, 120), start=1):
        await tracebox.export(export(span(number, 1, f"at {seconds}", at=(1000 * seconds, 1000 * seconds + 1))))
    await tab.show(f"{tracebox.url}/search", until=f"{FOUND} === 'at 120,at 60,at 0'")
    local = "((s) => new Date(s * 1000 - new Date(s * 1000).getTimezoneOffset() * 60000).toISOString().slice(0, 19))"
    start, end = [await tab.value(f"{local}({T0 + seconds})") for seconds in (30, 60)]
    await search(tab, lookback="custom", **{"from": start, "to": end})
    await tab.wait(f"{FOUND} === 'at 60'")
    address = await tab.value(ADDRESS)
    assert address == {"lookback": "custom", "start": f"{T0 + 30}000000", "end": f"{T0 + 60}999999"}
    await reload_in_another_tab(tab)
    assert await tab.value(FOUND) == "at 60"
    assert await tab.value("document.getElementById('filters').elements.to.value") == end
    await search(tab, lookback="15m")
    await tab.wait("!document.getElementById('empty').hidden")
    assert await tab.value(ADDRESS) == {"lookback": "15m"}


async def test_an_invalid_search_shows_a_message_in_the_form(tracebox: Tracebox, tab: Tab) -> None:
    await tracebox.export(export(span(1, 1)))
    await tab.show(f"{tracebox.url}/search", until="document.querySelector('.trace-row')")
    assert await tab.value("document.querySelector('#filters #problem').hidden")
    wrong: dict[str, dict[str, str]] = {
        "Write tags as key=value": {"tags": "cached"},
        "with a space between them": {"tags": 'a="1"b=2'},
        "a value with spaces in quotes": {"tags": 'a="open'},
        "is given twice": {"tags": "a=1 a=2"},
        "are strings": {"tags": '{"a": 1}'},
        "must not be later": {
            "tags": "",
            "lookback": "custom",
            "from": "2026-01-02T00:00:00",
            "to": "2026-01-01T00:00:00",
        },
        "Write the duration like": {"lookback": "", "minDuration": "soon"},
    }
    for message, fields in wrong.items():
        await search(tab, **fields)
        await tab.wait(f"({PROBLEM}).includes('{message}')")
    await search(tab, minDuration="")
    await tab.wait(f"({PROBLEM}) === ''")
    for address, message in {
        "tags=cached": "Write tags",
        "lookback=soon": "Write the time range",
        "start=x": "Fill in",
    }.items():
        await tab.show(f"{tracebox.url}/search?{address}", until=f"({PROBLEM}).includes('{message}')")


def rooted() -> dict[str, list[Span]]:
    """Traces of every shape, each with a root, which may be a span whose parent is missing."""
    return {
        "two circles, and a tail at one of them that began first": [
            span(0xA, 1, parent=2, at=(5, 9)),
            span(0xA, 2, parent=1, at=(6, 9)),
            span(0xA, 3, parent=1, at=(0, 9)),
            span(0xA, 4, parent=5, at=(3, 9)),
            span(0xA, 5, parent=6, at=(4, 9)),
            span(0xA, 6, parent=4, at=(2, 9)),
        ],
        "spans that are their own parents": [span(0xA, 1, parent=1), span(0xA, 2, parent=2)],
        "spans with one id": [span(0xA, 1, "a"), span(0xA, 1, "b", parent=1), span(0xA, 2, parent=1)],
        "missing parents and two roots": [span(0xA, 1), span(0xA, 2), span(0xA, 3, parent=9)],
        "no duration": [span(0xA, 1, "", at=(0, 0))],
        "an end before the start": [span(0xA, 1, at=(5, 1)), span(0xA, 2, at=(9, 0), parent=1)],
        "the first and the last possible time": [
            Span(trace_id=(0xA).to_bytes(16, "big"), span_id=b"12345678"),
            Span(trace_id=(0xA).to_bytes(16, "big"), span_id=b"12345679", start_time_unix_nano=(1 << 64) - 1),
        ],
        "a name of a megabyte": [span(0xA, 1, "a/" * 500_000, tags={"b." * 500_000: "c/" * 500_000})],
        "a very deep trace": [span(0xA, n, parent=n - 1, at=(n, 30_000 - n)) for n in range(1, 10_001)],
        "a very wide trace": [span(0xA, n, parent=int(n > 1), at=(n, 30_000)) for n in range(1, 20_001)],
    }


async def test_a_click_on_a_link_shows_the_linked_span_in_its_own_trace(tracebox: Tracebox, tab: Tab) -> None:
    first, other = 0xA << 64, 0xB << 64
    lookup = span(first, 1, "lookup", links=[(other, 2)])
    await tracebox.export(export(lookup, span(other, 1, "request"), span(other, 2, "shared call", parent=1)))
    title = "document.querySelector('#detail h2')?.textContent"
    await tab.show(f"{tracebox.url}/trace/{first:032x}#{1:016x}", until=f"{title} === 'lookup'")
    link = "[...document.querySelectorAll('#detail a')].find((a) => a.textContent.includes('0000000000000002'))"
    await tab.value(f"{link}.click()")
    await tab.wait(f"location.pathname === '/trace/{other:032x}' && {title} === 'shared call'")


async def test_every_shape_of_a_trace_is_shown(tracebox: Tracebox, tab: Tab) -> None:
    shapes = rooted()
    for number, (shape, spans) in enumerate(shapes.items(), start=1):
        for made in spans:
            made.trace_id = number.to_bytes(16, "big")
        for first in range(0, len(spans), 10_000):
            await tracebox.export(export(*spans[first : first + 10_000], service=None))
        await tab.show(f"{tracebox.url}/trace/{number:x}", until="document.querySelectorAll('.span-row').length > 0")
        rows = "document.getElementById('rows').clientHeight / 30"
        assert await tab.value(rows) == len(spans), shape
        await tab.value("document.getElementById('collapse').click()")
        await tab.value("document.querySelector('.span-row').click()")
        assert await tab.value("document.querySelector('#detail h2') !== null"), shape
    await tab.show(f"{tracebox.url}/search", until=f"document.querySelectorAll('.trace-row').length === {len(shapes)}")


async def test_every_address_of_a_trace_that_is_none_says_so(tracebox: Tracebox, tab: Tab) -> None:
    for path in ("a%2Fb", "%ff", "a/b", "not-hex", "%1b", "g" * 5000, "1" * 33):
        await tab.show(f"{tracebox.url}/trace/{path}", until="document.querySelector('#looking h2')")
        assert await tab.value("document.querySelector('#looking h2').textContent") == "This is not a trace id"
