"""What ends a request on each server: its client, its time budget, the size of its body, or its bytes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from api_edge.rules import MAX_REQUEST_BYTES
from tests.edge.mesh import get
from tests.edge.protocols.client import Trace
from tests.edge.test_disconnect import CANCELLED, outcome
from tests.servers.http2 import JSON
from tests.servers.shop import PATIENT, READ, on_http2, on_servers

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from tests.servers.shop import Edge, Shop

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:coroutine 'TCPServer._idle_timeout' was never awaited:RuntimeWarning"),
]

CALLS = frozenset({"GetStock", "GetPrice"})
BARE = {
    "hypercorn": "its own 400: https://github.com/pgjones/hypercorn/blob/0.18.0/src/hypercorn/protocol/h11.py",
    "granian": "hyper's own 400: https://docs.rs/hyper/latest/hyper/server/conn/http1/struct.Builder.html",
}
LONG_HEADS = {
    "hypercorn": "it limits only heads that arrive in parts: "
    "https://h11.readthedocs.io/en/latest/api.html#h11.Connection",
    "granian": "hyper's own 431: https://docs.rs/hyper/latest/hyper/server/conn/http1/struct.Builder.html",
}


@on_servers()
async def test_a_client_that_disconnects_cancels_the_calls(shop: Shop, edge: Edge) -> None:
    trace, shop.backends.blocked_methods = Trace(), CALLS
    _, writer = await asyncio.open_connection(*edge.address)
    writer.write(get(READ, traceparent=trace.begin(), **PATIENT))
    await shop.backends.until_reached(2)
    writer.close()
    assert outcome(await shop.ended(trace)) == CANCELLED
    await shop.until_cancelled(2)


@on_servers()
async def test_a_client_that_disconnects_within_its_body_has_a_499(shop: Shop, edge: Edge) -> None:
    trace = Trace()
    half = get("/v1/orders", traceparent=trace.begin(), Content_Length="99", **JSON).replace(b"GET", b"POST", 1)
    reader, writer = await asyncio.open_connection(*edge.address)
    writer.write(get("/livez") + b"".join([half, b"{"]))
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()
    assert outcome(await shop.ended(trace)) == CANCELLED


@on_http2()
async def test_a_stream_that_is_reset_cancels_its_calls_and_no_others(shop: Shop, edge: Edge) -> None:
    trace, shop.backends.blocked_methods = Trace(), CALLS
    async with edge.streams() as client:
        stream = await client.begin_get(READ, {"traceparent": trace.begin(), **PATIENT})
        await shop.backends.until_reached(2)
        other = await client.begin_get(READ, PATIENT)
        await client.reset(stream)
        assert outcome(await shop.ended(trace)) == CANCELLED
        shop.backends.free.set()
        assert (await client.response(other)).status == 200


@on_http2()
async def test_a_connection_that_closes_cancels_the_calls_of_all_its_streams(shop: Shop, edge: Edge) -> None:
    traces, shop.backends.blocked_methods = [Trace(), Trace()], CALLS | {"ListStock"}
    async with edge.streams() as client:
        for trace, path in zip(traces, [READ, "/v1/products"], strict=True):
            await client.begin_get(path, {"traceparent": trace.begin(), **PATIENT})
        await shop.backends.until_reached(3)
    assert [outcome(await shop.ended(trace)) for trace in traces] == [CANCELLED, CANCELLED]
    await shop.until_cancelled(3)


@on_http2()
async def test_a_response_that_nobody_reads_is_dropped_with_its_connection(shop: Shop, edge: Edge) -> None:
    trace = Trace()
    async with edge.streams() as client:
        await client.close_windows()
        await client.begin_get("/v1/products?page_size=100", {"traceparent": trace.begin()})
        await shop.until_called(trace, 2)
    await shop.ended(trace)


@on_servers()
async def test_the_time_budget_of_a_request_ends_it(shop: Shop, edge: Edge) -> None:
    shop.backends.blocked_methods = frozenset({"GetStock"})
    async with shop.mesh.http.get(f"http://{edge.target}{READ}", headers={"X-Request-Timeout-Ms": "100"}) as response:
        assert (response.status, (await response.json())["reason"]) == (504, "DEADLINE_EXCEEDED")


@on_servers()
@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_above_the_limit_is_refused(shop: Shop, edge: Edge, *, is_declared: bool) -> None:
    body = b" " * (MAX_REQUEST_BYTES + 1)

    async def parts() -> AsyncIterator[bytes]:
        yield body

    data: Any = body if is_declared else parts()
    async with shop.mesh.http.post(f"http://{edge.target}/v1/orders", data=data, headers=JSON) as response:
        assert (response.status, response.content_type) == (413, "application/problem+json")


@on_http2()
@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_above_the_limit_is_refused_over_http_2(edge: Edge, *, is_declared: bool) -> None:
    length = {"Content-Length": str(MAX_REQUEST_BYTES + 1)} if is_declared else {}
    async with edge.streams() as client:
        stream = await client.post("/v1/orders", b" " * (MAX_REQUEST_BYTES + 1), {**JSON, **length})
        assert (await client.response(stream)).status == 413


@on_http2(hypercorn="a later frame of its body ends the connection: https://github.com/pgjones/hypercorn/issues/329")
async def test_an_early_answer_leaves_the_other_streams_alone(shop: Shop, edge: Edge) -> None:
    shop.backends.blocked_methods = frozenset({"GetStock"})
    async with edge.streams() as client:
        other = await client.begin_get(READ, PATIENT)
        await shop.backends.until_reached(1)
        half = await client.post("/v1/orders", b"{", {**JSON, "X-Request-Timeout-Ms": "50"}, ends=False)
        assert (await client.response(half)).status == 408
        await client.send_late(half, b"}")
        shop.backends.free.set()
        assert (await client.response(other)).status == 200


@on_servers(**BARE)
async def test_bytes_that_are_no_request_get_a_problem(edge: Edge) -> None:
    assert b"application/problem+json" in await answer(edge, b"nonsense\r\n\r\n")


@on_servers(**BARE)
async def test_bytes_that_are_no_request_get_a_problem_under_tls(shop: Shop, server: str) -> None:
    async with shop.start(server, **shop.tls) as edge:
        assert b"application/problem+json" in await answer(edge, b"nonsense\r\n\r\n", shop.context("http/1.1"))


@on_servers(**LONG_HEADS)
async def test_a_head_above_64_kib_gets_a_problem(edge: Edge) -> None:
    assert b"application/problem+json" in await answer(edge, get("/livez", X_Long="x" * 65_536))


async def answer(edge: Edge, request: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """The head of the response to a request."""
    reader, writer = await asyncio.open_connection(*edge.address, ssl=context)
    writer.write(request)
    try:
        return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
