"""The ports of tracebox: OTLP over gRPC takes spans, and Jaeger's API and the list return them over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from yarl import URL

from tests.tracebox.running import Tracebox, serving
from tests.tracebox.spans import T0, export, span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

WINDOW = f"start={(T0 - 3600) * 1_000_000}&end={(T0 + 3600) * 1_000_000}"

SERVICE_HINT = "use one that /api/services lists, or give trace ids in 'traceID'."
TRACE_ID = "A trace id is 1 to 32 hexadecimal digits."
MICROSECONDS = "must be a time in whole microseconds since 1970, such as 1767323045000000."
DURATION = "must be a duration with its unit, such as 250us, 10ms or 1.5s."
LIMIT = "'limit' must be a whole number from 1 to 100000."
TAGS = """'tags' must be a JSON object of strings, such as {"cached":"true"}: quote numbers and booleans."""


@pytest_asyncio.fixture(loop_scope="module")
async def tracebox() -> AsyncIterator[Tracebox]:
    async with serving() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def empty() -> AsyncIterator[Tracebox]:
    """One for tests that store nothing."""
    async with serving() as opened:
        yield opened


async def test_exported_spans_can_be_read_at_once(tracebox: Tracebox) -> None:
    work = span(0xA1, 1, "GET /", kind=Span.SPAN_KIND_SERVER)
    response = await tracebox.export(export(work), grpc.Compression.Gzip)
    assert not response.HasField("partial_success")
    (trace,) = await tracebox.data("/api/traces/a1")
    assert [(s["operationName"], s["duration"]) for s in trace["spans"]] == [("GET /", 1000)]


async def test_a_malformed_export_is_invalid_argument(tracebox: Tracebox) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await tracebox.export(b"\xff\xff\xff")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await tracebox.data("/api/services") == []


async def test_an_export_with_broken_text_is_stored_and_gets_a_warning(tracebox: Tracebox) -> None:
    request = export(span(1, 1, "BROKEN"), span(2, 2)).SerializeToString().replace(b"BROKEN", b"BR\xff\xfeEN")
    response = await tracebox.export(request)
    assert response.partial_success.rejected_spans == 0
    assert response.partial_success.error_message.startswith("broken values were replaced: ")
    (broken,), (other,) = [await tracebox.data(f"/api/traces/{number}") for number in (1, 2)]
    names = [trace["spans"][0]["operationName"] for trace in (broken, other)]
    assert names == ["BR\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}EN", "work"]


async def test_spans_without_valid_ids_are_a_partial_success(tracebox: Tracebox) -> None:
    response = await tracebox.export(export(Span(trace_id=b"short", span_id=b"short"), span(1, 1)))
    assert response.partial_success.rejected_spans == 1
    assert response.partial_success.error_message == "a trace id must be 16 bytes, not all zero"
    assert len(await tracebox.data("/api/traces/1")) == 1


async def test_a_trace_larger_than_the_store_is_a_partial_success() -> None:
    async with serving(max_spans=3) as small:
        response = await small.export(export(*(span(1, number) for number in range(1, 6))))
        assert response.partial_success.rejected_spans == 2
        (trace,) = await small.data("/api/traces/1")
        assert len(trace["spans"]) == 3


def envelope(data: object, total: int = 0, errors: object = None) -> dict[str, object]:
    return {"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}


async def test_lists_and_empty_responses_have_jaegers_envelope(tracebox: Tracebox) -> None:
    assert await tracebox.get("/api/services") == envelope([])
    spans = [span(1, 1, "b", kind=Span.SPAN_KIND_SERVER), span(1, 2, "b"), span(1, 3, "a")]
    await tracebox.export(export(*spans, service="a shop"))
    responses = {
        "/api/services": envelope(["a shop"], 1),
        "/api/services/a%20shop/operations": envelope(["a", "b"], 2),
        "/api/services/nobody/operations": envelope(None),
        f"/api/traces?service=nobody&{WINDOW}": envelope([]),
        "/api/traces?service=a%20shop": envelope([]),  # the spans are older than the default of 48 hours
        "/api/traces?traceID=c0ffee": envelope([], errors=[{"msg": "trace not found", "traceID": "0000000000c0ffee"}]),
    }
    for path, expected in responses.items():
        assert await tracebox.get(path) == expected, path


async def test_a_trace_that_is_named_twice_is_returned_once(tracebox: Tracebox) -> None:
    await tracebox.export(export(span(1, 1)))
    ids = "&".join(f"traceID={text}" for text in ("1", "01", "2", "02", "1"))
    response = await tracebox.get(f"/api/traces?{ids}")
    assert [trace["traceID"] for trace in response["data"]] == ["0000000000000001"]
    assert response["errors"] == [{"msg": "trace not found", "traceID": "0000000000000002"}]


async def test_a_search_returns_the_newest_arrivals_first_up_to_the_limit(tracebox: Tracebox) -> None:
    for number in (3, 1, 2):
        await tracebox.export(export(span(number, 1, at=(number, number + 10 * number))))
    search = f"/api/traces?service=shop&{WINDOW}"
    newest = [trace["traceID"][-1] for trace in await tracebox.data(search)]
    assert newest == ["2", "1", "3"]
    assert [trace["traceID"][-1] for trace in await tracebox.data(f"{search}&limit=1")] == ["2"]
    assert [trace["traceID"][-1] for trace in await tracebox.data(f"{search}&minDuration=25ms")] == ["3"]


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/traces", 400, f"'service' is missing: {SERVICE_HINT}"),
        ("/api/traces/not-hex", 400, TRACE_ID),
        ("/api/traces/c0ffee", 404, "trace not found"),
        ("/api/traces/1?start=yesterday", 400, f"'start' {MICROSECONDS}"),
        ("/api/traces/1?raw=perhaps", 400, "'raw' must be true or false."),
        ("/api/traces?service=a&end=now", 400, f"'end' {MICROSECONDS}"),
        ("/api/traces?service=a&minDuration=5", 400, f"'minDuration' {DURATION}"),
        (
            "/api/traces?service=a&minDuration=2s&maxDuration=1s",
            400,
            "'maxDuration' must not be shorter than 'minDuration'.",
        ),
        ("/api/traces?service=a&limit=0", 500, LIMIT),
        ("/api/traces?service=a&limit=-1", 500, LIMIT),
        ("/api/traces?service=a&limit=many", 400, LIMIT),
        ("/api/traces?service=a&tag=n", 400, "'tag' must be key:value, such as tag=cached:true."),
        ("/api/traces?service=a&tags=n%3D3", 400, TAGS),
        ("/api/traces?traceID=zz", 400, TRACE_ID),
    ],
)
async def test_an_invalid_query_gets_jaegers_status_and_envelope_with_our_message(
    empty: Tracebox, path: str, status: int, message: str
) -> None:
    async with empty.http.get(path) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(await response.text()) == envelope(None, errors=[{"code": status, "msg": message}])


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=-1", LIMIT),
        ("service=a&limit=-2147483648", LIMIT),
        ("limit=0", LIMIT),
        ("limit=100001", LIMIT),
        (f"limit={'9' * 5000}", LIMIT),
        ("limit=%D9%A3", LIMIT),
        ("limit=1e3", LIMIT),
        ("limit=%2B5%00", LIMIT),
        ("limit=", "'limit' is empty: leave it out instead."),
        ("service=", "'service' is empty: leave it out instead."),
        ("limit=5&limit=6", "'limit' is given more than once."),
        ("minDuration=5", f"'minDuration' {DURATION}"),
        ("maxDuration=-5ms", f"'maxDuration' {DURATION}"),
        ("minDuration=2s&maxDuration=1s", "'maxDuration' must not be shorter than 'minDuration'."),
        ("start=x", f"'start' {MICROSECONDS}"),
        ("start=-5", "'start' must not be negative or later than 'end'."),
        ("start=9&end=8", "'start' must not be negative or later than 'end'."),
        ("errors=perhaps", "'errors' must be true or false."),
        ("tags=n%3D3", TAGS),
        ("serivce=a", "A parameter is unknown; these are known: service, operation, start, end, "),
    ],
)
async def test_an_invalid_parameter_of_the_list_is_a_problem(empty: Tracebox, query: str, detail: str) -> None:
    async with empty.http.get(URL(f"/summaries?{query}", encoded=True)) as response:
        assert (response.status, response.headers["Content-Type"]) == (400, "application/problem+json")
        problem = await response.json()
    assert problem.pop("detail").startswith(detail)
    assert problem == {"type": "about:blank", "title": "Bad Request", "status": 400}


async def test_headers_methods_and_unknown_paths_are_as_in_jaeger(empty: Tracebox) -> None:
    async with empty.http.get("/api/services", headers={"Origin": "http://elsewhere.test"}) as response:
        assert response.headers["Content-Type"] == "application/json"
        assert not {"Access-Control-Allow-Origin", "X-Content-Type-Options", "Server"} & set(response.headers)
    for method, path in [("POST", "/api/services"), ("GET", "/api/nonsense"), ("GET", "/static/nonsense.js")]:
        async with empty.http.request(method, path) as response:
            assert (response.status, await response.text()) == (404, "404 page not found\n"), path


async def test_every_address_of_the_page_returns_it_and_it_loads_only_our_files(empty: Tracebox) -> None:
    pages = set()
    odd = ("/trace/a%2Fb", "/trace/%ff%00", "/trace/a/b/", "/search/x", "/trace/" + "a" * 20_000)
    for path in ("/", "/search?service=x&minDuration=10ms", "/trace/a1", *odd):
        async with empty.http.get(URL(path, encoded=True)) as response:
            assert response.headers["Content-Type"] == "text/html; charset=utf-8"
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            pages.add(await response.text())
    (page,) = pages
    for path, kind in {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}.items():
        assert f'"/static/{path}"' in page
        async with empty.http.get(f"/static/{path}") as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith(kind)
    assert "//" not in page


async def test_summaries_contain_what_the_list_shows(tracebox: Tracebox) -> None:
    stock = span(0xA, 2, parent=1, at=(2, 8), error="no", tags={"otel": "x=y"})
    await tracebox.export(export(stock, service="stock"))
    await tracebox.export(export(span(0xA, 1, "GET /", at=(0, 10)), service="edge"))
    await tracebox.export(export(span(0xB, 3, "quick", at=(20, 21)), service="edge"))
    summaries = await tracebox.get("/summaries")
    assert [trace["operation"] for trace in summaries["traces"]] == ["quick", "GET /"]
    assert summaries["traces"][1] == {
        "traceID": "000000000000000a",
        "service": "edge",
        "operation": "GET /",
        "start": T0 * 1_000_000,
        "duration": 10_000,
        "spans": 2,
        "errors": 1,
        "clientErrors": 0,
        "outcome": "",
        "status": "",
        "services": {"edge": 1, "stock": 1},
    }
    assert summaries["held"]["traces"] == 2
    at = T0 * 1_000_000
    queries = ["errors=true", "minDuration=5ms", "service=stock", "service=edge&operation=GET%20/"]
    for query in (*queries, f"start={at}&end={at + 10_000}", 'tags={"otel":"x%3Dy"}', "tag=otel:x%3Dy"):
        found = (await tracebox.get(f"/summaries?{query}"))["traces"]
        assert [trace["traceID"] for trace in found] == ["000000000000000a"], query
