"""HTTP as RFC 9110 and RFC 9112 have it: Host, Content-Encoding, HEAD, and the headers of every response."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from multidict import CIMultiDict

from tests.edge.mesh import PROBLEM, Answer, Mesh, assert_problem, get, mesh, post_order, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ("/v1/products/TEA-0001", "/livez", "/nothing")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


async def raw(shop: Mesh, request: bytes) -> Answer:
    async with wire(shop) as connection:
        await connection.send(request)
        return await connection.answer()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Host: a\r\nHost: b\r\n",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nhOST:\r\n",
        *(
            b"Host: %b\r\n" % host
            for host in (
                b"[",
                b"[::1",
                b"::1",
                b"[::1]x",
                b"[1.2.3.4]",
                b"a b",
                b"a, b",
                b"x/y?z",
                b"http://x",
                b"\xc3\xa4",
                b"user@host",
                b"a:b",
                b"a:65536",
                b"a:1:2",
                b"%zz",
                b"a\\b",
            )
        ),
    ],
)
async def test_a_request_without_exactly_one_valid_host_is_400(shop: Mesh, path: str, fields: bytes) -> None:
    answer = await raw(shop, b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), fields))
    assert (answer.status, answer.headers["Content-Type"]) == (400, PROBLEM)
    assert (answer.body["reason"], answer.body["instance"]) == ("INVALID_HOST", path)


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize(
    "host",
    [b"", b"x", b"x:", b"x:80", b"X.example.", b"127.0.0.1:8080", b"[::1]:80", b"[::ffff:1.2.3.4]", b"a%20b", b"_x"],
)
async def test_a_valid_host_is_accepted(shop: Mesh, path: str, host: bytes) -> None:
    assert (await raw(shop, b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path.encode(), host))).status == 200


async def test_a_request_in_http_1_0_needs_no_host_but_may_not_have_two(shop: Mesh) -> None:
    assert (await raw(shop, b"GET /livez HTTP/1.0\r\n\r\n")).status == 200
    assert (await raw(shop, b"GET /livez HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n")).status == 400


async def test_a_refused_host_is_logged_and_its_connection_serves_the_next_request(
    shop: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    async with wire(shop) as connection:
        await connection.send(post_order().replace(b"Host: x\r\n", b"") + get("/livez"))
        assert [(await connection.answer()).status for _ in range(2)] == [400, 200]
    lines = [record.getMessage() for record in caplog.records if record.name == "api_edge.access"]
    assert lines[-1] == "POST /v1/orders 400"


@pytest.mark.parametrize(
    "codings",
    [["gzip"], ["GZIP"], ["x-gzip"], ["br"], ["zstd"], ["deflate"], ["identity, gzip"], ["identity", "gzip"], ["x y"]],
)
@pytest.mark.parametrize("path", ["/v1/orders", "/v1/orders/x/commit", "/v1/x"])
async def test_an_encoded_body_is_415(shop: Mesh, path: str, codings: list[str]) -> None:
    headers = CIMultiDict([("Content-Type", "application/json"), *(("Content-Encoding", each) for each in codings)])
    answer = await shop.ask("POST", path, data=gzip.compress(b"{}"), headers=headers)
    assert_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("coding", ["identity", "Identity", "identity, identity", ""])
async def test_a_body_that_is_encoded_as_itself_is_accepted(shop: Mesh, coding: str) -> None:
    assert (await shop.order(("TEA-0001", 1), headers={"Content-Encoding": coding})).status == 201


async def test_a_large_encoded_body_is_415_and_the_connection_serves_the_next_request(shop: Mesh) -> None:
    head = get("/v1/orders", Content_Encoding="br", Content_Length=str(2**20)).replace(b"GET", b"POST", 1)
    async with wire(shop) as connection:
        await connection.send(head + b" " * 2**20 + get("/livez"))
        assert [(await connection.answer()).status for _ in range(2)] == [415, 200]


async def test_an_encoded_body_with_expect_continue_is_415_and_closes_the_connection(shop: Mesh) -> None:
    request = post_order(Content_Encoding="gzip", Expect="100-continue")
    async with wire(shop) as connection:
        await connection.send(request.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert (await connection.answer()).status == 415
        assert await connection.rest() == b""


@pytest.mark.parametrize(
    "path",
    [
        "/v1/products?page_size=2",
        "/v1/products/TEA-0001",
        "/v1/products/NO-1",
        "/v1/products?quantity=0",
        "/nothing",
        "/livez",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/docs/assets/swagger-ui.css",
        "/",
    ],
)
async def test_head_has_the_head_of_get_and_no_body(shop: Mesh, path: str) -> None:
    head, whole = await shop.ask("HEAD", path), await shop.get(path)
    assert (head.status, head.text) == (whole.status, "")
    assert head.headers["Location" if path == "/" else "Content-Type"]
    assert constant(head, path) == constant(whole, path)
    assert [name for name, _ in head.headers.items()] == [name for name, _ in whole.headers.items()]


def constant(answer: Answer, path: str) -> dict[str, str]:
    """The headers that are equal in each response for a path."""
    vary = {"date", "server-timing", "x-trace-id", "traceresponse", "link"}
    vary |= {"content-length"} if path == "/metrics" else set()  # which grows with each request
    return {name: value for name, value in answer.headers.items() if name.lower() not in vary}


async def test_head_calls_the_same_backends_as_get_under_a_span_of_its_own_method(shop: Mesh) -> None:
    names = []
    for method in ("HEAD", "GET"):
        answer = await shop.ask(method, "/v1/products/TEA-0001")
        names.append(sorted(span.name.removeprefix(method) for span in await shop.spans(answer.trace_id)))
    assert names[0] == names[1]
    assert " /v1/products/{sku}" in names[0]


async def test_head_leaves_the_connection_for_the_next_request(shop: Mesh) -> None:
    async with wire(shop) as connection:
        await connection.send(get("/v1/products/TEA-0001").replace(b"GET", b"HEAD", 1) + get("/livez"))
        received = b""
        while not received.endswith(b"\r\n\r\nok\n"):
            received += await connection._reader.readuntil(b"\n")
    assert received.count(b"HTTP/1.1 200") == 2
    assert b"{" not in received


@pytest.mark.parametrize(
    ("path", "cache"),
    [
        ("/v1/products/TEA-0001", "no-store"),
        ("/v1/products/NO-1", "no-store"),
        ("/nothing", "no-store"),
        ("/openapi.json", "no-store"),
        ("/livez", "no-store"),
        ("/", "no-store"),
        ("/docs", "no-cache"),
        ("/docs/assets/swagger-ui.css", "no-cache"),
    ],
)
async def test_no_response_is_sniffed_or_stored_unchecked(shop: Mesh, path: str, cache: str) -> None:
    headers = (await shop.get(path)).headers
    names = ("x-content-type-options", "cache-control")
    found = [(name.lower(), value) for name, value in headers.items() if name.lower() in names]
    assert sorted(found) == [("cache-control", cache), ("x-content-type-options", "nosniff")]


async def test_a_refused_request_is_not_sniffed_or_stored(shop: Mesh) -> None:
    for answer in (await raw(shop, b"GET / HTTP/1.1\r\n\r\n"), await shop.ask("POST", "/v1/x", data=b" " * 200_000)):
        assert answer.status in {400, 413}
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_an_unchanged_asset_is_304(shop: Mesh) -> None:
    path = "/docs/assets/swagger-ui.css"
    etag = (await shop.get(path)).headers["ETag"]
    answer = await shop.get(path, headers={"If-None-Match": etag})
    assert (answer.status, answer.text) == (304, "")


async def test_the_documentation_has_a_policy_that_no_page_may_frame_it(shop: Mesh) -> None:
    policy = (await shop.get("/docs")).headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
