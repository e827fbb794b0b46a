"""What people put in front of the edge, by settings: proxies, a path prefix, CORS, host names, a public edge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from multidict import CIMultiDict

from tests.edge.mesh import PROBLEM, Answer, Mesh, mesh, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "http://localhost:3000"
FOREIGN = "http://localhost:3001"
PRODUCT = "/v1/products/TEA-0001"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-00"  # not sampled


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A public edge behind trusted proxies, with CORS and host names."""
    settings: dict[str, Any] = {
        "trusted_proxies": "127.0.0.1,10.0.0.0/8,2001:db8::/32",
        "allowed_hosts": "x,shop.example.com,[2001:db8::1]",
        "cors_origins": ORIGIN,
        "public": True,
    }
    async with mesh(tmp_path_factory.mktemp("shop"), **settings) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """An edge without settings."""
    async with mesh(tmp_path_factory.mktemp("plain")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prefixed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """An edge with a fixed prefix, which is also the beginning of its own paths."""
    async with mesh(tmp_path_factory.mktemp("prefixed"), path_prefix="/v1/") as shop:
        yield shop


async def ask(shop: Mesh, path: str, *fields: tuple[str, str], method: str = "GET", **request: Any) -> Answer:
    return await shop.ask(method, path, headers=CIMultiDict([("Host", "x"), *fields]), **request)


def server_span(spans: Sequence[ReadableSpan]) -> ReadableSpan:
    (span,) = [span for span in spans if (span.attributes or {}).get("http.request.method")]
    return span


async def peer(shop: Mesh, caplog: pytest.LogCaptureFixture, *fields: tuple[str, str]) -> str:
    """The client that the access log names; the span names its address."""
    caplog.clear()
    answer = await ask(shop, "/v1/x", *fields)
    (record,) = [record for record in caplog.records if record.name == "api_edge.access"]
    logged: str = record.__dict__["peer"]
    address = (server_span(await shop.spans(answer.trace_id)).attributes or {})["client.address"]
    assert str(address) in logged
    return logged


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        (["192.0.2.1"], "192.0.2.1:0"),
        (["192.0.2.1:5678"], "192.0.2.1:5678"),
        (["2001:db9::1"], "2001:db9::1"),
        (["[2001:db9::1]"], "2001:db9::1"),
        (["[2001:db9::1]:99"], "2001:db9::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1:0"),
        (["203.0.113.9, 192.0.2.1"], "192.0.2.1:0"),
        (["203.0.113.9", "192.0.2.1"], "192.0.2.1:0"),
        (["192.0.2.1, 10.1.2.3, 10.0.0.1"], "192.0.2.1:0"),
        (["192.0.2.1,2001:db8::7", " 10.0.0.1 "], "192.0.2.1:0"),
        (["10.0.0.2, 10.0.0.1"], "10.0.0.2:0"),
        (["192.0.2.1, unknown, 10.0.0.1"], "10.0.0.1:0"),
        (["192.0.2.1, 10.0.0.1:x"], "127.0.0.1:"),
        (["192.0.2.1,"], "127.0.0.1:"),
        ([""], "127.0.0.1:"),
        ([], "127.0.0.1:"),
    ],
)
async def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    shop: Mesh, caplog: pytest.LogCaptureFixture, forwarded_for: list[str], client: str
) -> None:
    fields = [("X-Forwarded-For", value) for value in forwarded_for]
    found = await peer(shop, caplog, *fields, ("Forwarded", "for=203.0.113.1"))
    assert client in found


async def test_scheme_and_host_are_those_that_the_nearest_proxy_wrote(shop: Mesh) -> None:
    fields = [
        ("X-Forwarded-Proto", "http, https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Host", "shop.example.com"),
    ]
    answer = await ask(shop, "/v1/x", *fields)
    attributes = server_span(await shop.spans(answer.trace_id)).attributes or {}
    assert [attributes[name] for name in ("url.scheme", "server.address", "server.port")] == [
        "https",
        "shop.example.com",
        443,
    ]


async def test_invalid_forwarded_fields_change_nothing(shop: Mesh) -> None:
    fields = [("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "a b"), ("X-Forwarded-Prefix", "//evil.example")]
    answer = await ask(shop, "/v1/x", *fields)
    assert answer.body["instance"] == "/v1/x"
    attributes = server_span(await shop.spans(answer.trace_id)).attributes or {}
    assert (attributes["url.scheme"], attributes["server.address"]) == ("http", "x")


async def test_nobody_is_trusted_without_the_setting(plain: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    fields = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.example.com"),
        ("X-Forwarded-Prefix", "/shop"),
    ]
    assert "127.0.0.1" in await peer(plain, caplog, *fields)
    assert (await ask(plain, "/", *fields)).headers["Location"] == "/docs"


async def links(shop: Mesh, *fields: tuple[str, str]) -> list[str]:
    """Every link that the edge gives to a client."""
    page = await ask(shop, "/docs", *fields)
    order = await ask(shop, "/v1/orders", *fields, method="POST", json={"lines": [{"sku": "TEA-0009", "quantity": 1}]})
    problem = await ask(shop, "/v1/orders/x", *fields)
    document = await ask(shop, "/openapi.json", *fields)
    return [
        *re.findall(r'(?:src|href)="([^"]+)"', page.text),
        *re.findall(r"url: '([^']+)'", page.text),
        (await ask(shop, "/", *fields)).headers["Location"],
        order.headers["Location"],
        problem.body["instance"],
        *(server["url"] for server in document.body.get("servers", [{"url": "/"}])),
    ]


@pytest.mark.parametrize(
    ("fields", "prefix"),
    [
        (["/shop"], "/shop"),
        (["/shop/"], "/shop"),
        (["/a/b-c.d_e~1"], "/a/b-c.d_e~1"),
        (["/a, /b"], "/a/b"),
        (["/a", "/b"], "/a/b"),
        (["/v1"], "/v1"),
        (["/docs"], "/docs"),
    ],
)
async def test_every_link_begins_with_the_prefix_of_a_trusted_proxy(shop: Mesh, fields: list[str], prefix: str) -> None:
    found = await links(shop, *(("X-Forwarded-Prefix", value) for value in fields))
    assert len(found) == 9
    assert [link for link in found if not f"{link}/".startswith(f"{prefix}/")] == []


async def test_every_link_begins_with_the_fixed_prefix(prefixed: Mesh) -> None:
    found = await links(prefixed)
    assert len(found) == 9
    assert [link for link in found if not f"{link}/".startswith("/v1/")] == []
    assert {"/v1/docs", "/v1/openapi.json", "/v1"} <= set(found)
    answer = await ask(prefixed, PRODUCT)
    (span,) = [span for span in await prefixed.spans(answer.trace_id) if "http.route" in (span.attributes or {})]
    assert span.name == "GET /v1/v1/products/{sku}", "a route includes the root of the application"
    assert (await ask(prefixed, PRODUCT, method="PUT")).headers["Allow"] == "GET, HEAD"
    assert "X-Trace-Id" not in (await ask(prefixed, "/livez")).headers


@pytest.mark.parametrize(
    "prefix",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/a//b",
        "/a/../b",
        "/..",
        "shop",
        "/a b",
        "/a'b",
        '/a"b',
        "/<b>",
        "/%2f",
        "/a?b",
        "/",
        "",
    ],
)
async def test_an_unsafe_prefix_is_ignored(shop: Mesh, prefix: str) -> None:
    assert (await ask(shop, "/", ("X-Forwarded-Prefix", prefix))).headers["Location"] == "/docs"


PREFLIGHT = (("Origin", ORIGIN), ("Access-Control-Request-Method", "POST"))


async def preflight(shop: Mesh, *fields: tuple[str, str]) -> Answer:
    return await ask(shop, "/v1/orders", *fields, method="OPTIONS")


async def test_a_preflight_allows_what_the_api_reads_and_has_no_trace(
    shop: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    names = "idempotency-key,content-type,x-request-timeout-ms,traceparent,tracestate,baggage"
    answer = await preflight(shop, *PREFLIGHT, ("Access-Control-Request-Headers", names))
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.headers["Vary"]
    assert "X-Trace-Id" not in answer.headers


@pytest.mark.parametrize(
    ("path", "request_", "status"),
    [
        (PRODUCT, {}, 200),
        ("/v1/products/NO-1", {}, 404),
        ("/v1/orders", {"method": "POST", "data": b" " * 200_000}, 413),
        ("/v1/orders", {"method": "POST", "data": b"{"}, 415),
        ("/v1/orders", {"method": "PUT"}, 405),
    ],
)
async def test_every_response_may_be_read_by_an_allowed_origin(
    shop: Mesh, path: str, request_: dict[str, Any], status: int
) -> None:
    answer = await ask(shop, path, ("Origin", ORIGIN), **request_)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, ORIGIN)
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert set(exposed) >= {"X-Trace-Id", "traceresponse", "Server-Timing", "Link", "Location", "Retry-After"}


async def test_a_400_and_a_421_may_be_read_by_an_allowed_origin(shop: Mesh) -> None:
    for host, status in (("", 400), ("Host: other\r\n", 421)):
        async with wire(shop) as connection:
            await connection.send(f"GET /v1/x HTTP/1.1\r\n{host}Origin: {ORIGIN}\r\n\r\n".encode())
            answer = await connection.answer()
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, ORIGIN)


@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://localhost:3000.evil.example", "HTTP://LOCALHOST:3000"])
async def test_another_origin_is_allowed_nothing(shop: Mesh, origin: str) -> None:
    for answer in (
        await preflight(shop, ("Origin", origin), PREFLIGHT[1]),
        await ask(shop, PRODUCT, ("Origin", origin)),
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


async def test_no_origin_is_allowed_without_the_setting(plain: Mesh) -> None:
    assert "Access-Control-Allow-Origin" not in (await ask(plain, PRODUCT, ("Origin", ORIGIN))).headers
    assert (await preflight(plain, *PREFLIGHT)).status == 405


@pytest.mark.parametrize("host", ["x", "X", "x:8080", "x.", "shop.example.com", "[2001:db8::1]:80", "[2001:DB8:0::1]"])
async def test_a_request_for_an_allowed_host_is_served(shop: Mesh, host: str) -> None:
    assert (await shop.get(PRODUCT, headers={"Host": host})).status == 200


@pytest.mark.parametrize("host", ["", "y", "x.y", "127.0.0.1", "shop.example.com.evil.example", "[::1]"])
async def test_a_request_for_another_host_is_421(shop: Mesh, host: str) -> None:
    answer = await shop.get(PRODUCT, headers={"Host": host})
    assert (answer.status, answer.headers["Content-Type"]) == (421, PROBLEM)
    assert (answer.body["reason"], answer.body["title"]) == ("MISDIRECTED_REQUEST", "Misdirected Request")
    for probe in ("/livez", "/readyz", "/metrics"):
        assert (await shop.get(probe, headers={"Host": host})).status == 200


async def test_the_host_that_a_trusted_proxy_was_asked_for_counts(shop: Mesh) -> None:
    assert (await ask(shop, PRODUCT, ("X-Forwarded-Host", "evil.example"))).status == 421
    answer = await shop.get(PRODUCT, headers={"Host": "upstream", "X-Forwarded-Host": "shop.example.com"})
    assert answer.status == 200


async def test_a_public_edge_begins_a_trace_of_its_own_with_a_link_to_the_caller(shop: Mesh) -> None:
    fields = [("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("baggage", "user=1")]
    answer = await ask(shop, PRODUCT, *fields)
    assert answer.trace_id != TRACE
    flags = int(answer.headers["traceresponse"][-2:], 16)
    assert flags & 1, "it is sampled although the caller's trace is not"
    spans = await shop.spans(answer.trace_id)
    assert len(spans) > 4, "the backends belong to the same trace"
    span = server_span(spans)
    assert span.parent is None
    (link,) = span.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (TRACE, SPAN)
    assert not span.context or not span.context.trace_state


@pytest.mark.parametrize("fields", [[], [("traceparent", "00-x")], [("tracestate", "a=1")], [("baggage", "a=1")]])
async def test_a_public_edge_links_nothing_without_a_valid_caller(shop: Mesh, fields: list[tuple[str, str]]) -> None:
    answer = await ask(shop, "/v1/x", *fields)
    span = server_span(await shop.spans(answer.trace_id))
    assert (span.parent, list(span.links)) == (None, [])
