"""How a call over HTTP may end, in Connect and in gRPC-Web: what its client reads, and the status of its one span."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.trace import SpanKind, StatusCode

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from api_edge.rpc.server import STOREFRONT
from api_edge.rules import MAX_REQUEST_BYTES
from meshkit.connect.protocols import HTTP_STATUSES, code_name
from meshkit.telemetry import semconv
from tests.edge.mesh import Mesh, mesh, trace_id_of, wire
from tests.edge.protocols.client import Trace
from tests.edge.protocols.web import CODES, frame, parsed
from tests.edge.test_draining import LONG, Slow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = f"/{STOREFRONT.name}/"
JSON = {"Content-Type": "application/json"}
BINARY = {"Content-Type": "application/proto"}
WEB = {"Content-Type": "application/grpc-web+proto"}
PRODUCT = pb.GetProductRequest(sku="TEA-0001").SerializeToString()
LARGE = pb.GetProductRequest(sku="S" * MAX_REQUEST_BYTES).SerializeToString()
BOMB = gzip.compress(bytes(100 * MAX_REQUEST_BYTES))
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"

Ending: TypeAlias = "tuple[str, dict[str, str], bytes, str]"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@dataclass(frozen=True)
class Read:
    """What the client of a call reads."""

    status: int
    code: str
    message: str
    headers: Any


async def ask(shop: Mesh, method: str, headers: dict[str, str], body: bytes, http: str = "POST") -> Read:
    """Makes a call in the protocol of the headers."""
    sent = {"Accept-Encoding": "identity", **headers}
    async with shop.http.request(http, shop.url + PATH + method, data=body, headers=sent) as response:
        return read(response.status, response.headers, await response.read())


def read(status: int, headers: Any, body: bytes) -> Read:
    if headers["Content-Type"].startswith("application/grpc-web"):
        assert status in {200, 405, 415}
        trailers = parsed(body)[1] or headers
        return Read(status, CODES[trailers["grpc-status"]], trailers.get("grpc-message", ""), headers)
    if status == 200:
        return Read(status, "OK", "", headers)
    error = json.loads(body)
    (code,) = [code for code in HTTP_STATUSES if code_name(code) == error["code"]]
    assert status in {HTTP_STATUSES[code], 405, 415}
    return Read(status, code, error["message"], headers)


ENDINGS: dict[str, Ending] = {
    "success": ("GetProduct", BINARY, PRODUCT, "OK"),
    "success over gRPC-Web": ("GetProduct", WEB, frame(PRODUCT), "OK"),
    "success, packed": (
        "GetProduct",
        {**BINARY, "Content-Encoding": "gzip", "Accept-Encoding": "gzip"},
        gzip.compress(PRODUCT),
        "OK",
    ),
    "success with parameters in the content type": (
        "GetProduct",
        {"Content-Type": "Application/JSON; charset=utf-8"},
        b'{"sku": "TEA-0001"}',
        "OK",
    ),
    "an error": ("GetOrder", JSON, b'{"order_id": "x"}', "NOT_FOUND"),
    "an error over gRPC-Web": ("GetOrder", WEB, frame(b"\x0a\x01x"), "NOT_FOUND"),
    "a deadline in the past": ("GetProduct", {**BINARY, "Connect-Timeout-Ms": "0"}, PRODUCT, "DEADLINE_EXCEEDED"),
    "a deadline in the past over gRPC-Web": (
        "GetProduct",
        {**WEB, "Grpc-Timeout": "1n"},
        frame(PRODUCT),
        "DEADLINE_EXCEEDED",
    ),
    "no JSON": ("GetProduct", JSON, b"{", "INVALID_ARGUMENT"),
    "no UTF-8": ("GetProduct", JSON, b'{"sku": "\xff"}', "INVALID_ARGUMENT"),
    "no message": ("GetProduct", BINARY, b"\xff", "INVALID_ARGUMENT"),
    "no message over gRPC-Web": ("GetProduct", WEB, frame(b"\xff"), "INVALID_ARGUMENT"),
    "no frame": ("GetProduct", WEB, b"", "UNIMPLEMENTED"),
    "half of a frame": ("GetProduct", WEB, frame(PRODUCT)[:-1], "INVALID_ARGUMENT"),
    "two frames": ("GetProduct", WEB, frame(PRODUCT) * 2, "UNIMPLEMENTED"),
    "unknown flags": ("GetProduct", WEB, frame(PRODUCT, flags=0x40), "INVALID_ARGUMENT"),
    "packed without saying how": ("GetProduct", WEB, frame(gzip.compress(PRODUCT), flags=1), "INTERNAL"),
    "no gzip": ("GetProduct", {**BINARY, "Content-Encoding": "gzip"}, b"x", "INVALID_ARGUMENT"),
    "unknown compression": ("GetProduct", {**BINARY, "Content-Encoding": "br"}, PRODUCT, "UNIMPLEMENTED"),
    "unknown compression over gRPC-Web": (
        "GetProduct",
        {**WEB, "Grpc-Encoding": "br"},
        frame(PRODUCT, flags=1),
        "UNIMPLEMENTED",
    ),
    "an oversized message": ("GetProduct", BINARY, LARGE, "RESOURCE_EXHAUSTED"),
    "an oversized message over gRPC-Web": ("GetProduct", WEB, frame(LARGE), "RESOURCE_EXHAUSTED"),
    "an oversized frame that does not come": (
        "GetProduct",
        WEB,
        struct.pack(">BI", 0, 2**32 - 1),
        "RESOURCE_EXHAUSTED",
    ),
    "a gzip bomb": ("GetProduct", {**BINARY, "Content-Encoding": "gzip"}, BOMB, "RESOURCE_EXHAUSTED"),
    "a gzip bomb over gRPC-Web": (
        "GetProduct",
        {**WEB, "Grpc-Encoding": "gzip"},
        frame(BOMB, flags=1),
        "RESOURCE_EXHAUSTED",
    ),
    "an invalid timeout": ("GetProduct", {**BINARY, "Connect-Timeout-Ms": "1s"}, PRODUCT, "INVALID_ARGUMENT"),
    "an invalid timeout over gRPC-Web": (
        "GetProduct",
        {**WEB, "Grpc-Timeout": "1"},
        frame(PRODUCT),
        "INVALID_ARGUMENT",
    ),
    "another version": ("GetProduct", {**BINARY, "Connect-Protocol-Version": "2"}, PRODUCT, "INVALID_ARGUMENT"),
    "headers that are not ASCII": ("GetProduct", {**BINARY, "X-Name": "\xe4\xff"}, PRODUCT, "OK"),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_client_reads_the_status_that_the_span_has(
    shop: Mesh, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    method, headers, body, code = ENDINGS[ending]
    trace = Trace()
    found = await ask(shop, method, {**headers, "traceparent": trace.begin()}, body)
    assert found.code == code, found
    await assert_one_span(shop, trace, headers, f"{STOREFRONT.name}/{method}", code)
    assert not [record for record in caplog.records if record.exc_info]


async def assert_one_span(shop: Mesh, trace: Trace, headers: dict[str, str], method: str, code: str) -> None:
    """Asserts that the edge has one SERVER span of a call."""
    spans = [span for span in await shop.spans(trace.trace_id) if span.kind is SpanKind.SERVER]
    (span,) = [span for span in spans if span.parent and span.parent.span_id == trace.parent]
    attributes = dict(span.attributes or {})
    assert attributes["rpc.response.status_code"] == code
    assert attributes["rpc.system.name"] == (
        "grpc" if headers.get("Content-Type", "").startswith(WEB_TYPE) else "connectrpc"
    )
    assert attributes["client.address"] == "127.0.0.1"
    assert span.status.status_code is (StatusCode.ERROR if code in semconv.SERVER_ERRORS else StatusCode.UNSET)
    if attributes["rpc.method"] != "_OTHER":
        assert (span.name, attributes["rpc.method"]) == (method, method)
    else:
        assert attributes["rpc.method_original"] == method


WEB_TYPE = "application/grpc"


@pytest.mark.parametrize(
    ("headers", "code", "system"), [(JSON, 501, "connectrpc"), (WEB, 200, "grpc")], ids=["Connect", "gRPC-Web"]
)
async def test_an_unknown_method_is_unimplemented(shop: Mesh, headers: dict[str, str], code: int, system: str) -> None:
    trace = Trace()
    found = await ask(shop, "GetNothing", {**headers, "traceparent": trace.begin()}, b"{}")
    assert (found.status, found.code) == (code, "UNIMPLEMENTED")
    await assert_one_span(shop, trace, headers, f"{STOREFRONT.name}/GetNothing", "UNIMPLEMENTED")
    assert system in {(span.attributes or {}).get("rpc.system.name") for span in await shop.spans(trace.trace_id)}


@pytest.mark.parametrize(
    ("http", "method", "headers", "status", "header"),
    [
        ("POST", "GetProduct", {"Content-Type": "text/plain"}, 415, "Accept-Post"),
        ("POST", "GetProduct", {"Content-Type": "application/grpc-web-text"}, 415, "Accept-Post"),
        ("POST", "GetProduct", {"Content-Type": "application/grpc-web+thrift"}, 415, "Accept-Post"),
        ("GET", "GetProduct?message=&encoding=xml", {}, 415, "Accept-Post"),
        ("GET", "GetProduct", WEB, 405, "Allow"),
        ("PUT", "GetProduct", JSON, 405, "Allow"),
        ("GET", "PlaceOrder?message={}&encoding=json", {}, 405, "Allow"),
    ],
)
async def test_what_is_no_call_is_refused_by_http(
    shop: Mesh, http: str, method: str, headers: dict[str, str], status: int, header: str
) -> None:
    found = await ask(shop, method, headers, b"", http)
    assert (found.status, found.code) == (status, "INVALID_ARGUMENT")
    assert found.headers[header]
    assert "is not supported; use " in found.message.replace("%3B", ";")


async def test_grpc_without_trailers_is_told_so_in_grpc(shop: Mesh) -> None:
    async with shop.http.post(
        shop.url + PATH + "GetProduct", data=frame(PRODUCT), headers={"Content-Type": "application/grpc"}
    ) as response:
        assert (response.status, response.headers["grpc-status"]) == (200, "12")
        assert response.content_type == "application/grpc"
        assert "sends no trailers" in response.headers["grpc-message"]


async def test_a_get_is_a_read_that_no_cache_stores(shop: Mesh) -> None:
    answer = await shop.get(f'{PATH}GetProduct?connect=v1&encoding=json&message={{"sku":"TEA-0001"}}')
    assert (answer.status, answer.body["product"]["sku"]) == (200, "TEA-0001")
    rest = await shop.get("/v1/products/TEA-0001")
    for name in ("Cache-Control", "X-Content-Type-Options"):
        assert answer.headers[name] == rest.headers[name]
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["Trailer-X-Trace-Id"])
    assert not {"X-Trace-Id", "Server-Timing"} & set(answer.headers)


@pytest.mark.parametrize("message", ["", "x", "%7B%22sku%22%3A%22%FF%22%7D"])
async def test_a_get_without_a_message_is_invalid(shop: Mesh, message: str) -> None:
    found = await ask(shop, f"GetProduct?encoding=json&message={message}", {}, b"", "GET")
    assert found.code in {"INVALID_ARGUMENT", "NOT_FOUND"}


async def test_a_public_edge_begins_a_trace_of_its_own(tmp_path: Path) -> None:
    async with mesh(tmp_path, public=True) as shop:
        await ask(shop, "GetProduct", {**BINARY, "traceparent": TRACEPARENT}, PRODUCT)
        spans = await shop.spans()
    (root,) = [span for span in spans if span.parent is None]
    assert [f"{link.context.trace_id:032x}" for link in root.links] == [TRACE_ID]
    assert {trace_id_of(span) for span in spans} == {trace_id_of(root)} != {TRACE_ID}


async def test_the_metrics_and_the_log_have_the_call_once(shop: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    await ask(shop, "GetProduct", BINARY, PRODUCT)
    await shop.spans()
    lines = [record.getMessage() for record in caplog.records if "StorefrontService" in record.getMessage()]
    assert lines == [f"{STOREFRONT.name}/GetProduct OK"]
    metrics = (await shop.get("/metrics")).text
    assert re.search(
        f'rpc_server_call_duration_seconds_count{{.*rpc_method="{STOREFRONT.name}/GetProduct".*connectrpc', metrics
    )


async def test_a_path_prefix_is_that_of_the_rpcs_too(tmp_path: Path) -> None:
    async with mesh(tmp_path, path_prefix="/shop") as shop:
        assert (await ask(shop, "GetProduct", BINARY, PRODUCT)).code == "OK"


async def test_a_page_of_an_allowed_origin_may_call(tmp_path: Path) -> None:
    async with mesh(tmp_path, cors_origins=("https://page.test",)) as shop:
        asked = "connect-protocol-version,connect-timeout-ms,content-type,grpc-timeout,x-grpc-web,x-user-agent"
        preflight = {
            "Origin": "https://page.test",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": asked,
        }
        assert (await shop.ask("OPTIONS", f"{PATH}GetProduct", headers=preflight)).status == 200
        found = await ask(shop, "GetProduct", {**WEB, "Origin": "https://page.test"}, frame(PRODUCT))
        exposed = {name.strip().lower() for name in found.headers["Access-Control-Expose-Headers"].split(",")}
        assert {"grpc-status", "grpc-message", "grpc-status-details-bin", "trailer-x-trace-id"} <= exposed


@pytest.mark.parametrize("headers", [BINARY, WEB], ids=["Connect", "gRPC-Web"])
async def test_a_bug_is_internal_with_a_fixed_text(
    tmp_path: Path, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("api_edge.storefront.Storefront.product", fails)
    async with mesh(tmp_path) as shop:
        found = await ask(shop, "GetProduct", headers, frame(PRODUCT) if headers is WEB else PRODUCT)
        (span,) = [span for span in await shop.spans() if span.parent is None]
    assert (found.code, found.message.replace("%20", " ")) == ("INTERNAL", "internal error")
    assert [event.name for event in span.events] == ["exception"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["a secret"]


@pytest.mark.parametrize("headers", [BINARY, WEB], ids=["Connect", "gRPC-Web"])
async def test_a_response_of_another_type_is_a_bug(
    tmp_path: Path, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr("api_edge.rpc.servicer.StorefrontServicer.GetProduct", nothing)
    async with mesh(tmp_path) as shop:
        found = await ask(shop, "GetProduct", headers, frame(PRODUCT) if headers is WEB else PRODUCT)
    assert (found.code, found.message.replace("%20", " ")) == ("INTERNAL", "internal error")


TIMEOUTS = {"Connect": (BINARY, {"Connect-Timeout-Ms": "1000"}), "gRPC-Web": (WEB, {"Grpc-Timeout": "1S"})}


@pytest.mark.parametrize("protocol", TIMEOUTS)
async def test_a_call_whose_deadline_passes_is_cancelled_with_its_calls(tmp_path: Path, protocol: str) -> None:
    slow = Slow()
    headers, timeout = TIMEOUTS[protocol]
    async with mesh(tmp_path, inventory_servicer=slow.servicer()) as shop:
        body = frame(PRODUCT) if headers is WEB else PRODUCT
        found = await ask(shop, "GetProduct", {**headers, **timeout, "traceparent": TRACEPARENT}, body)
        await slow.cancelled.wait()
        spans = await shop.spans(TRACE_ID)
    assert found.code == "DEADLINE_EXCEEDED"
    assert root_status(spans) == "DEADLINE_EXCEEDED"


def root_status(spans: list[Any]) -> str:
    (root,) = [
        span
        for span in spans
        if span.resource.attributes["service.name"] == "api_edge" and span.kind is SpanKind.SERVER
    ]
    return str(root.attributes["rpc.response.status_code"])


def request(headers: dict[str, str], body: bytes, length: int | None = None) -> bytes:
    """The bytes of a call."""
    every = {"Host": "x", **headers, "Content-Length": str(len(body) if length is None else length)}
    fields = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    return f"POST {PATH}GetProduct HTTP/1.1\r\n{fields}\r\n".encode() + body


@pytest.mark.parametrize("headers", [BINARY, WEB], ids=["Connect", "gRPC-Web"])
async def test_a_client_that_disconnects_cancels_the_calls_of_the_edge(tmp_path: Path, headers: dict[str, str]) -> None:
    slow = Slow()
    async with mesh(tmp_path, inventory_servicer=slow.servicer()) as shop:
        async with wire(shop) as connection:
            body = frame(PRODUCT) if headers is WEB else PRODUCT
            await connection.send(request({**headers, "traceparent": TRACEPARENT}, body))
            await slow.reached.wait()
        await slow.cancelled.wait()
        assert root_status(await shop.spans(TRACE_ID)) == "CANCELLED"


async def test_a_client_that_disconnects_within_its_body_has_called_nothing(shop: Mesh) -> None:
    trace = Trace()
    async with wire(shop) as connection:
        await connection.send(request({**BINARY, "traceparent": trace.begin()}, PRODUCT, length=100))
        while STOREFRONT.name not in " ".join(span.name for span in shop.open_spans.spans):
            await asyncio.sleep(0.001)
    spans = await shop.spans(trace.trace_id)
    assert len(spans) == 1
    assert root_status(spans) == "CANCELLED"


@pytest.mark.parametrize("headers", [BINARY, WEB], ids=["Connect", "gRPC-Web"])
async def test_a_draining_edge_finishes_the_calls_and_then_says_that_it_is_unavailable(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    slow = Slow()
    body = frame(PRODUCT) if headers is WEB else PRODUCT
    limits = {"Connect-Timeout-Ms": "20000", "Grpc-Timeout": "20S"}
    async with mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=0.01) as shop:
        call = asyncio.create_task(ask(shop, "GetProduct", {**headers, **limits, "traceparent": TRACEPARENT}, body))
        await slow.reached.wait()
        shop.stop.request()
        found = await call
        assert (found.code, found.message.replace("%20", " ")) == ("UNAVAILABLE", "this server is shutting down")
        assert root_status(await shop.spans(TRACE_ID)) == "UNAVAILABLE"


@pytest.mark.parametrize("headers", [BINARY, WEB], ids=["Connect", "gRPC-Web"])
async def test_a_call_in_flight_is_completed_while_the_edge_drains(tmp_path: Path, headers: dict[str, str]) -> None:
    slow = Slow()
    body = frame(PRODUCT) if headers is WEB else PRODUCT
    async with mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=LONG) as shop:
        call = asyncio.create_task(ask(shop, "GetProduct", headers, body))
        await slow.reached.wait()
        shop.stop.request()
        slow.free.set()
        assert (await call).code == "OK"
        await shop.server_task


async def test_a_refused_body_leaves_the_connection_to_the_next_call(shop: Mesh) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as http:
        for content_type in ("text/plain", "application/proto"):
            async with http.post(
                f"{shop.url}{PATH}GetProduct", data=PRODUCT, headers={"Content-Type": content_type}
            ) as response:
                assert "Connection" not in response.headers
                await response.read()


async def test_an_edge_without_calls_over_connect_does_not_load_connectrpc() -> None:
    """It takes 7 MB and 0.4 s of CPU."""
    program = "import sys, api_edge.app; sys.exit('connectrpc' in sys.modules or 'pyqwest' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0
