"""Any invalid input gets a problem that describes the error: never a 500, never plain text."""

from __future__ import annotations

import asyncio
import http.client
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from meshkit.fastapi.refusal import DISCARD_SECONDS
from tests.edge.mesh import PROBLEM, Answer, Mesh, assert_problem, get, mesh, post_order, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX = 128 * 1024
CHUNKED = get(
    "/v1/orders", Content_Type="application/json", Transfer_Encoding="chunked", X_Request_Timeout_Ms="50"
).replace(b"GET", b"POST", 1)
LINE = {"sku": "TEA-0001", "quantity": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


async def post(shop: Mesh, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    return await shop.ask(
        "POST", "/v1/orders", data=body, headers={"Content-Type": "application/json"} | (headers or {})
    )


def order(**fields: object) -> bytes:
    return json.dumps({"lines": [LINE]} | fields).encode()


def line(**fields: object) -> bytes:
    return order(lines=[LINE | fields])


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", ["body"]),
        (b"{", ["body"]),
        (b'{"lines": [],}', ["body"]),
        (b"\xff", ["body"]),
        (b'{"lines": "\xe4"}', ["body"]),
        (b"null", ["body"]),
        (b"[]", ["body"]),
        (b"5", ["body"]),
        (b'"lines"', ["body"]),
        (b"[" * 100_000, ["body"]),
        (b'{"lines":' * 10_000, ["body"]),
        (b'{"lines":' + b"[" * 500 + b"]" * 500 + b"}", ["lines[0]"]),
        (b"{}", ["lines"]),
        (order(lines=None), ["lines"]),
        (order(lines={}), ["lines"]),
        (order(lines=[]), ["lines"]),
        (order(lines=[LINE | {"sku": f"S{number}"} for number in range(101)]), ["lines"]),
        (order(lines=[5]), ["lines[0]"]),
        (order(lines=[{}]), ["lines[0].sku", "lines[0].quantity"]),
        (order(lines=[LINE, {"sku": "", "quantity": 0}]), ["lines[1].sku", "lines[1].quantity"]),
        (order(lines=[LINE, LINE]), ["body"]),
        (order(currency=None), ["currency"]),
        (order(currency=5), ["currency"]),
        (order(extra=1), ["extra"]),
        (order(**{"\ud800": 1}), ["body"]),
        (order(currency="\ud800"), ["currency"]),
        (line(extra=1), ["lines[0].extra"]),
        (line(sku=5), ["lines[0].sku"]),
        (line(sku="S" * 65), ["lines[0].sku"]),
        (line(sku="\ud800"), ["lines[0].sku"]),
        (line(sku="T\0"), ["lines[0].sku"]),
        (line(sku="T\u200b"), ["lines[0].sku"]),
        (line(quantity=0), ["lines[0].quantity"]),
        (line(quantity=-1), ["lines[0].quantity"]),
        (line(quantity=1_000_001), ["lines[0].quantity"]),
        (line(quantity=10**30), ["lines[0].quantity"]),
        (line(quantity=1e30), ["lines[0].quantity"]),
        (line(quantity=1.0), ["lines[0].quantity"]),
        (line(quantity=float("nan")), ["lines[0].quantity"]),
        (line(quantity=True), ["lines[0].quantity"]),
        (line(quantity="1"), ["lines[0].quantity"]),
        (line(quantity=None), ["lines[0].quantity"]),
        (b'{"lines": [{"sku": "TEA-0001", "quantity": ' + b"9" * 5000 + b"}]}", ["lines[0].quantity"]),
        (order().decode().encode("utf-16"), ["body"]),
        (order().decode().encode("utf-16-le"), ["body"]),
        (order().decode().encode("utf-32"), ["body"]),
        (order().decode().encode("utf-8-sig"), ["body"]),
        (b'{"lines": "\xc0\xaf"}', ["body"]),  # an overlong form of a slash
        (b'{"lines": "\xed\xa0\x80"}', ["body"]),  # a surrogate
        (b'{"lines": [], "lines": []}', ["lines"]),
        (b'{"currency": "EUR", "lines": [{"sku": "A", "quantity": 1, "s\\u006bu": "B"}]}', ["lines[0].sku"]),
        (b'{"extra": {"a": [0, {"b": 1, "b": 1}]}}', ["extra.a[1].b"]),
        (b'[{"a": 1, "a": 2}, ' + b"[" * 100_000, ["body"]),
        (b'{"extra": [1, -Infinity]}', ["extra[1]"]),
        (b'{"lines": NaN}', ["lines"]),
        (b'{"lines": 1e999}', ["lines"]),
        (b'{"lines": [' + b"{}," * 10_000 + b"{}]}", ["body"]),
        (order(**{f"{number:x}": 0 for number in range(1000)}), ["body"]),
    ],
)
async def test_an_invalid_body_is_422_with_the_paths_of_its_fields(shop: Mesh, body: bytes, fields: list[str]) -> None:
    answer = await post(shop, body)
    assert_problem(answer, 422, "INVALID_REQUEST")
    assert [error["field"] for error in answer.body["errors"]] == fields
    assert all(error["description"] for error in answer.body["errors"])


async def test_a_body_with_countless_invalid_fields_gets_a_short_response(shop: Mesh) -> None:
    answer = await post(shop, order(**{f"{number}" * 500: 1 for number in range(100)}))
    assert_problem(answer, 422, "INVALID_REQUEST")
    assert len(answer.body["errors"]) == 30
    assert len(answer.text) < 20_000


@pytest.mark.parametrize("currency", ["XXX", "eur", "", "\ud83d\ude00", "E" * 100_000])
async def test_an_unknown_currency_in_the_body_is_400(shop: Mesh, currency: str) -> None:
    answer = await post(shop, order(currency=currency))
    assert_problem(answer, 400, "UNKNOWN_CURRENCY")
    assert len(answer.text) < 1000


async def test_an_unknown_sku_in_the_body_is_404(shop: Mesh) -> None:
    answer = await post(shop, line(sku="NO-1"))
    assert_problem(answer, 404, "UNKNOWN_SKU")
    assert answer.body["metadata"] == {"sku": "NO-1"}


@pytest.mark.parametrize("media_type", ["text/plain", "application/vnd.api+json", "multipart/form-data", "json", ""])
async def test_a_body_of_another_media_type_is_415(shop: Mesh, media_type: str) -> None:
    assert_problem(await post(shop, order(), {"Content-Type": media_type}), 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_body_without_a_media_type_is_415(shop: Mesh) -> None:
    answer = await shop.ask("POST", "/v1/orders", data=order(), skip_auto_headers=["Content-Type"])
    assert_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/json ;x"])
async def test_the_media_type_of_json_is_accepted_in_any_spelling(shop: Mesh, media_type: str) -> None:
    assert (await post(shop, order(), {"Content-Type": media_type})).status == 201


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/orders/00000000-0000-0000-0000-000000000000/commit", "/v1/x"])
async def test_a_body_with_a_declared_length_above_128_kib_is_413(shop: Mesh, path: str) -> None:
    assert_problem(await shop.ask("POST", path, data=b" " * (MAX + 1)), 413, "CONTENT_TOO_LARGE")


async def test_a_body_that_grows_beyond_128_kib_is_413(shop: Mesh) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * (MAX // 16)

    answer = await shop.ask("POST", "/v1/orders", data=chunks(), headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, "CONTENT_TOO_LARGE")


async def test_a_body_whose_last_chunk_exceeds_128_kib_is_413_at_once(shop: Mesh) -> None:
    head = CHUNKED.replace(b"-Ms: 50", b"-Ms: 30000")
    async with wire(shop) as connection, asyncio.timeout(DISCARD_SECONDS):
        await connection.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (MAX + 1, b" " * (MAX + 1)))
        assert_problem(await connection.answer(), 413, "CONTENT_TOO_LARGE")


@pytest.mark.parametrize("incomplete", [post_order(X_Request_Timeout_Ms="50")[:-1], CHUNKED + b"1\r\n{\r\n"])
async def test_a_body_that_does_not_arrive_within_the_budget_is_408_and_closes_the_connection(
    shop: Mesh, incomplete: bytes
) -> None:
    async with wire(shop) as connection:
        await connection.send(incomplete)
        answer = await connection.answer()
        assert await connection.rest() == b""
    assert_problem(answer, 408, "REQUEST_TIMEOUT")
    assert answer.headers["Connection"] == "close"


async def test_a_too_large_body_with_expect_continue_is_413_and_closes_the_connection(shop: Mesh) -> None:
    async with wire(shop) as connection:
        await connection.send(
            CHUNKED.replace(b"Transfer-Encoding: chunked", b"Expect: 100-continue\r\nContent-Length: 131073")
        )
        answer = await connection.answer()
        assert await connection.rest() == b""
    assert_problem(answer, 413, "CONTENT_TOO_LARGE")
    assert answer.headers["Connection"] == "close"


async def test_a_content_length_may_have_leading_zeros(shop: Mesh) -> None:
    async with wire(shop) as connection:
        await connection.send(post_order().replace(b"Length: ", b"Length: " + b"0" * 5000))
        assert (await connection.answer()).status == 201


def post_before_reading(address: tuple[str, int], size: int) -> int:
    """The status for a simple client, which sends its whole body before it reads, with `Connection: close`."""
    connection = http.client.HTTPConnection(*address, timeout=15)
    connection.request("POST", "/v1/orders", b" " * size, {"Connection": "close"})
    with closing(connection), connection.getresponse() as response:
        return response.status


async def test_a_client_that_sends_its_whole_body_before_reading_gets_the_413(shop: Mesh) -> None:
    assert [await asyncio.to_thread(post_before_reading, shop.address, 30 * 1024 * 1024) for _ in range(5)] == [413] * 5


async def test_a_body_of_128_kib_is_accepted(shop: Mesh) -> None:
    assert (await post(shop, order().ljust(MAX))).status == 201


@pytest.mark.parametrize(
    "timeout_ms", ["0", "-1", "abc", "30001", "1.5", "+5", "1e3", "0x10", "", "\u0661", "9" * 5000]
)
@pytest.mark.parametrize("path", ["/v1/products", "/v1/orders/x", "/v1/unknown"])
async def test_an_invalid_time_budget_is_400(shop: Mesh, path: str, timeout_ms: str) -> None:
    assert_problem(await shop.get(path, headers={"X-Request-Timeout-Ms": timeout_ms}), 400, "INVALID_TIMEOUT")


async def test_two_time_budgets_are_400(shop: Mesh) -> None:
    headers = CIMultiDict([("X-Request-Timeout-Ms", "100"), ("X-Request-Timeout-Ms", "100")])
    assert_problem(await shop.get("/v1/products", headers=headers), 400, "INVALID_TIMEOUT")


@pytest.mark.parametrize("timeout_ms", ["30000", "02000"])
async def test_a_valid_time_budget_is_accepted(shop: Mesh, timeout_ms: str) -> None:
    assert (await shop.get("/v1/products/TEA-0001", headers={"X-Request-Timeout-Ms": timeout_ms})).status == 200


@pytest.mark.parametrize("key", ["", "\u00e4", "k" * 256, "k" * 50_000, "a\tb"])
async def test_an_invalid_idempotency_key_is_400(shop: Mesh, key: str) -> None:
    assert_problem(await post(shop, order(), {"Idempotency-Key": key}), 400, "INVALID_IDEMPOTENCY_KEY")


async def test_two_idempotency_keys_are_400(shop: Mesh) -> None:
    headers = CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "application/json")])
    answer = await shop.ask("POST", "/v1/orders", data=order(), headers=headers)
    assert_problem(answer, 400, "INVALID_IDEMPOTENCY_KEY")


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/v1/products/%zz", 404, "UNKNOWN_SKU"),
        ("/v1/products/%", 404, "UNKNOWN_SKU"),
        ("/v1/products/%ff", 404, "UNKNOWN_SKU"),
        ("/v1/products/%ED%A0%80", 404, "UNKNOWN_SKU"),
        ("/v1/products/%F0%9F%8D%B5", 404, "UNKNOWN_SKU"),
        ("/v1/products/%00", 422, "INVALID_REQUEST"),
        ("/v1/products/%0d%0aX-Evil:%201", 422, "INVALID_REQUEST"),
        ("/v1/products/" + "S" * 65, 422, "INVALID_REQUEST"),
        ("/v1/products/" + "S" * 30_000, 422, "INVALID_REQUEST"),
        ("/v1/products/a%2Fb", 404, "UNKNOWN_ROUTE"),
        ("/v1/products/", 404, "UNKNOWN_ROUTE"),
        ("/v1/orders/", 404, "UNKNOWN_ROUTE"),
        ("/v1/orders/x/y", 404, "UNKNOWN_ROUTE"),
        ("/v1/", 404, "UNKNOWN_ROUTE"),
        ("/v1/nothing", 404, "UNKNOWN_ROUTE"),
        ("/v1/products/TEA-0001?currency=" + "E" * 30_000, 400, "UNKNOWN_CURRENCY"),
        ("/v1/products/TEA-0001?currency=%00%ff", 400, "UNKNOWN_CURRENCY"),
        ("/v1/orders/x", 404, "UNKNOWN_ORDER"),
        ("/v1/orders/" + "x" * 30_000, 404, "UNKNOWN_ORDER"),
        ("/v1/orders/%00", 404, "UNKNOWN_ORDER"),
        ("/v1/orders/00000000-0000-0000-0000-000000000000", 404, "UNKNOWN_ORDER"),
    ],
)
async def test_an_invalid_path_is_a_problem(shop: Mesh, path: str, status: int, reason: str) -> None:
    answer = await shop.get(path)
    assert_problem(answer, status, reason)
    assert answer.body["instance"].isascii()
    assert not set(answer.body["instance"]) & set(' "<>\\^`{|}\x00\r\n')


async def test_an_unknown_path_outside_the_api_is_a_problem(shop: Mesh) -> None:
    answer = await shop.get("/nothing")
    assert (answer.status, answer.headers["Content-Type"]) == (404, PROBLEM)
    assert answer.body["reason"] == "UNKNOWN_ROUTE"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/products", "GET, HEAD"),
        ("/v1/products/TEA-0001", "GET, HEAD"),
        ("/v1/orders", "POST"),
        ("/v1/orders/x", "DELETE, GET, HEAD"),
        ("/v1/orders/x/commit", "POST"),
        ("/livez", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/docs/assets/swagger-ui.css", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE"])
async def test_an_unsupported_method_is_405_and_lists_the_allowed_ones(
    shop: Mesh, method: str, path: str, allowed: str
) -> None:
    answer = await shop.ask(method, path)
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Allow"]) == (405, PROBLEM, allowed)
    assert answer.body["reason"] == "METHOD_NOT_ALLOWED"


async def test_head_of_a_path_without_get_is_405_without_a_body(shop: Mesh) -> None:
    answer = await shop.ask("HEAD", "/v1/orders")
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Allow"]) == (405, PROBLEM, "POST")
    assert answer.text == ""


@pytest.mark.parametrize("traceparent", ["", "00", "00-xyz-1-01", "ff-" + "0" * 32 + "-" + "0" * 16 + "-01", "\u00e4"])
async def test_a_malformed_traceparent_starts_a_new_trace(shop: Mesh, traceparent: str) -> None:
    answer = await shop.get("/v1/products/TEA-0001", headers={"traceparent": traceparent})
    assert answer.status == 200
    assert int(answer.trace_id, 16) > 0


texts = st.text(st.characters(), max_size=70)  # including surrogates
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
lines = st.dictionaries(st.sampled_from(["sku", "quantity"]) | texts, values, max_size=3)
orders = st.dictionaries(
    st.sampled_from(["lines", "currency"]) | texts, values | st.lists(lines, max_size=3), max_size=3
)
bodies = st.binary(max_size=100) | (values | orders).map(lambda value: json.dumps(value).encode())


@settings(max_examples=25, deadline=None)
@given(body=bodies)
async def test_no_body_breaks_the_edge(shop: Mesh, body: bytes) -> None:
    answer = await post(shop, body)
    assert answer.status in {400, 404, 422}, answer.text
    assert_problem(answer, answer.status, answer.body["reason"])


@settings(max_examples=25, deadline=None)
@given(
    sku=st.text(st.characters(exclude_categories=["Cs"]), max_size=70),
    parameters=st.dictionaries(
        st.sampled_from(["currency", "quantity", "strict", "page_token", "page_size", "sku"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=70),
    ),
)
async def test_no_path_or_query_breaks_the_edge(shop: Mesh, sku: str, parameters: dict[str, Any]) -> None:
    answer = await shop.get(f"/v1/products/{quote(sku, safe='')}?{urlencode(parameters)}")
    assert answer.status in {400, 404, 422}, answer.text
    assert_problem(answer, answer.status, answer.body["reason"])
