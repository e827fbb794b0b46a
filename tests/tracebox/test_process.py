"""tracebox as a process: a real exporter sends OTLP over gRPC, and Jaeger's API returns the traces over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from typing import TYPE_CHECKING

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests import service_process
from tests.tracebox.running import Tracebox, running
from tests.tracebox.spans import T0, export, span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WINDOW = f"start={(T0 - 3600) * 1_000_000}&end={(T0 + 3600) * 1_000_000}"

SERVICE_HINT = "use one that /api/services lists, or give trace ids in 'traceID'."
TRACE_ID = "A trace id is 1 to 32 hexadecimal digits."
MICROSECONDS = "must be a time in whole microseconds since 1970, such as 1767323045000000."
DURATION = "must be a duration with its unit, such as 250us, 10ms or 1.5s."
LIMIT = "'limit' must be a whole number from 1 to 100000."
TAGS = """'tags' must be a JSON object of strings, such as {"cached":"true"}: quote numbers and booleans."""


@pytest.fixture
async def tracebox() -> AsyncIterator[Tracebox]:
    async with running() as started:
        yield started


def export_with_sdk(otlp: str, traces: int, spans: int) -> list[str]:
    """Creates traces of a root and its children with the SDK, exports them, and returns their ids."""
    provider = TracerProvider(resource=Resource({"service.name": "sdk"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(otlp, insecure=True, compression=grpc.Compression.Gzip)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=traces * spans))
    tracer = provider.get_tracer("tests", "1")
    ids = []
    for number in range(traces):
        with tracer.start_as_current_span("root", attributes={"number": number}) as root:
            ids.append(f"{root.get_span_context().trace_id:032x}")
            for _ in range(spans - 1):
                tracer.start_span("child").end()
    provider.shutdown()
    return ids


async def test_ten_thousand_spans_of_a_real_exporter_are_stored_and_found(tracebox: Tracebox) -> None:
    ids = await asyncio.to_thread(export_with_sdk, tracebox.otlp, 1000, 10)
    assert await tracebox.data("/api/services") == ["sdk"]
    found = await tracebox.data("/api/traces?service=sdk&limit=2000")
    assert sorted(trace["traceID"] for trace in found) == sorted(ids)
    assert {len(trace["spans"]) for trace in found} == {10}
    tags = json.dumps({"number": "789"})
    (one,) = await tracebox.data(f"/api/traces?service=sdk&operation=root&tags={tags}")
    assert one["traceID"] == ids[789]


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


async def test_spans_without_valid_ids_are_a_partial_success(tracebox: Tracebox) -> None:
    response = await tracebox.export(export(Span(trace_id=b"short", span_id=b"short"), span(1, 1)))
    assert response.partial_success.rejected_spans == 1
    assert response.partial_success.error_message == "a trace id must be 16 bytes, not all zero"
    assert len(await tracebox.data("/api/traces/1")) == 1


async def test_a_trace_larger_than_the_store_is_a_partial_success() -> None:
    async with running(max_spans="3") as small:
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
        ("/summaries?limit=-1", 400, LIMIT),
        ("/summaries?service=a&limit=-2147483648", 400, LIMIT),
        ("/summaries?limit=0", 400, LIMIT),
        ("/summaries?minDuration=5", 400, f"'minDuration' {DURATION}"),
        ("/summaries?start=x", 400, f"'start' {MICROSECONDS}"),
        ("/summaries?tags=n%3D3", 400, TAGS),
    ],
)
async def test_an_invalid_query_gets_jaegers_status_and_envelope_with_our_message(
    tracebox: Tracebox, path: str, status: int, message: str
) -> None:
    async with tracebox.http.get(path) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(await response.text()) == envelope(None, errors=[{"code": status, "msg": message}])


async def test_headers_methods_and_unknown_paths_are_as_in_jaeger(tracebox: Tracebox) -> None:
    async with tracebox.http.get("/api/services", headers={"Origin": "http://elsewhere.test"}) as response:
        assert response.headers["Content-Type"] == "application/json"
        assert not {"Access-Control-Allow-Origin", "X-Content-Type-Options", "Server"} & set(response.headers)
    for method, path in [("POST", "/api/services"), ("GET", "/api/nonsense"), ("GET", "/static/nonsense.js")]:
        async with tracebox.http.request(method, path) as response:
            assert (response.status, await response.text()) == (404, "404 page not found\n"), path


async def test_every_address_of_the_page_returns_it_and_it_loads_only_our_files(tracebox: Tracebox) -> None:
    pages = set()
    for path in ("/", "/search?service=x&minDuration=10ms", "/trace/a1"):
        async with tracebox.http.get(path) as response:
            assert response.headers["Content-Type"] == "text/html; charset=utf-8"
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            pages.add(await response.text())
    (page,) = pages
    for path, kind in {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}.items():
        assert f'"/static/{path}"' in page
        async with tracebox.http.get(f"/static/{path}") as response:
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_with_exit_status_0_and_nothing_on_stderr(
    tracebox: Tracebox, number: signal.Signals
) -> None:
    await tracebox.export(export(span(1, 1)))
    tracebox.process.signal(number)
    assert (await tracebox.process.exit_status(), tracebox.process.lines) == (0, [])


async def test_exports_in_flight_at_a_signal_succeed_or_fail_without_a_traceback(tracebox: Tracebox) -> None:
    text = "x" * 1_000_000
    requests = [export(span(number, 1, tags={"text": text})) for number in range(1, 9)]
    exports = [asyncio.ensure_future(tracebox.export(request)) for request in requests]
    await asyncio.wait(exports, return_when=asyncio.FIRST_COMPLETED)
    tracebox.process.signal(signal.SIGTERM)
    results = await asyncio.gather(*exports, return_exceptions=True)
    failures = {result.code() for result in results if isinstance(result, grpc.aio.AioRpcError)}
    # a stopping grpc.aio server ends a request that it has received but not accepted as CANCELLED
    assert failures <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    responses = [result for result in results if not isinstance(result, grpc.aio.AioRpcError)]
    assert responses
    assert all(response == ExportTraceServiceResponse() for response in responses)
    assert (await tracebox.process.exit_status(), tracebox.process.lines) == (0, [])


async def test_it_stops_even_if_a_client_stops_reading_a_response(tracebox: Tracebox) -> None:
    for number in range(1, 9):
        await tracebox.export(export(span(1, number, tags={"text": "x" * 4_000_000})))
    async with tracebox.http.get("/api/traces/1") as response:
        assert response.status == 200
        tracebox.process.signal(signal.SIGTERM)
        assert await tracebox.process.exit_status() == 0
    assert not [line for line in tracebox.process.lines if "Traceback" in line]


@pytest.mark.parametrize("setting", ["otlp_listen", "query_listen"])
async def test_a_port_in_use_is_one_line_that_names_the_address_and_the_variable(setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        async with service_process.running("tracebox", **{setting: address}) as process:
            assert await process.exit_status() == 1
    variable = f"TRACEBOX_{setting}".upper()
    expected = f"cannot listen on {address}: Address already in use; set {variable} to another address\n"
    assert (process.printed, process.lines) == ([], [expected])


async def test_each_invalid_setting_is_one_line_that_names_the_variable_and_the_exit_status_is_2() -> None:
    wrong = {"otlp_listen": "nonsense", "query_listen": "a:٣", "max_spans": "0"}
    async with service_process.running("tracebox", **wrong) as process:
        assert await process.exit_status() == 2
    assert process.printed == []
    assert [line.removesuffix("\n") for line in process.lines] == [
        "TRACEBOX_OTLP_LISTEN: must be host:port, such as 127.0.0.1:9464",
        "TRACEBOX_QUERY_LISTEN: must be host:port, such as 127.0.0.1:9464",
        "TRACEBOX_MAX_SPANS: Input should be greater than 0",
    ]
