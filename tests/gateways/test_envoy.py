"""Calls through Envoy: gRPC-Web, traces, deadlines, cancellation, forwarded headers, and which edge has a call."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from tests.clients.node import FOLDER, install, program
from tests.edge.mesh import get, trace_id_of
from tests.edge.protocols.client import Trace
from tests.edge.protocols.web import frame, parsed
from tests.gateways.envoy import Envoy, Failing, envoy, failing_edge
from tests.gateways.shop import GET_PRODUCT, READ, new_place
from tests.servers.http2 import http2
from tools.protos import describe_transcoding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.gateways.shop import Shop

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

PRODUCT = pb.GetProductRequest(sku="TEA-0001")
ORDER = pb.PlaceOrderRequest(lines=[pb.NewOrderLine(sku="TEA-0001", quantity=1)])
CALLS = frozenset({"GetStock", "GetPrice"})
PATIENT = {"grpc-timeout": "9S"}
NOT_FOUND, SERVER, CLIENT, LONG, DRAIN = 5, 2, 3, 60.0, 4.0


def in_front(shop: Shop, name: str) -> AbstractAsyncContextManager[Envoy]:
    """Envoy in front of both edges of the shop."""
    places = shop.places
    rest, rpc = [place.rest for place in places], [place.rpc for place in places]
    return envoy(shop.folder / name, shop.authority, rest, rpc, 2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(running_shop: Shop) -> AsyncIterator[Envoy]:
    async with in_front(running_shop, "calls") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(running: Envoy) -> AsyncIterator[grpc.aio.Channel]:
    async with running.front.channel() as channel:
        yield channel


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_failing(running_shop: Shop) -> AsyncIterator[tuple[Failing, Envoy]]:
    async with failing_edge() as (edge, address):
        rest = [running_shop.places[0].rest]
        async with envoy(running_shop.folder / "failing", running_shop.authority, rest, [address], 1) as running:
            yield edge, running


@pytest.fixture
def failing(running_failing: tuple[Failing, Envoy]) -> tuple[Failing, Envoy]:
    """An edge that fails each call, and Envoy in front of it."""
    edge, running = running_failing
    edge.calls.clear()
    edge.remaining.clear()
    return edge, running


@pytest.fixture(autouse=True)
def _unblocked(shop: Shop) -> None:
    """No test leaves blocked backends to the next."""


def stub(channel: grpc.aio.Channel) -> Any:
    return pb_grpc.StorefrontServiceStub(channel)


async def code_of(call: Any) -> str:
    """The status that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return str(raised.value.code().name)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("client", ["grpc-web", "grpc-web text"])
async def test_the_client_grpc_web_reads_a_product_and_an_error(running: Envoy, tmp_path: Path, client: str) -> None:
    await asyncio.to_thread(install)
    await asyncio.to_thread(describe_transcoding, tmp_path / "image.binpb")
    running.front.authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    command = (*program("node"), "node_clients.mjs", client, running.front.url, str(tmp_path / "image.binpb"))
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(tmp_path / "ca.pem")}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=FOLDER, env=environment)
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    found = json.loads(out)
    assert (found["sku"], found["code"], found["reason"]) == ("TEA-0001", NOT_FOUND, "UNKNOWN_SKU"), found


async def test_an_answer_of_grpc_web_text_is_base64_of_the_message(running: Envoy) -> None:
    web = {"Content-Type": "application/grpc-web-text", "Accept": "application/grpc-web-text"}
    async with running.front.client() as client:
        body = base64.b64encode(frame(PRODUCT.SerializeToString()))
        answer = await client.post(GET_PRODUCT, content=body, headers=web)
    assert answer.headers["Content-Type"] == "application/grpc-web-text+proto"
    (message,), _ = parsed(decoded(answer.text))
    assert pb.GetProductResponse.FromString(message).product.sku == "TEA-0001"


def decoded(text: str) -> bytes:
    """The bytes of parts, each of which may end with padding."""
    return b"".join(base64.b64decode(text[at : at + 4]) for at in range(0, len(text), 4))


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")])
async def test_tls_offers_http_2_and_http_1_1(running: Envoy, offered: list[str], chosen: str) -> None:
    context = running.front.context(*offered)
    _, writer = await asyncio.open_connection(*running.front.address, ssl=context)
    found = writer.get_extra_info("ssl_object")
    assert (found.selected_alpn_protocol(), found.version()) == (chosen, "TLSv1.3")
    writer.close()


@pytest.mark.parametrize("size", [200_000, 2_000_000])
async def test_a_message_that_is_too_large_is_resource_exhausted(channel: grpc.aio.Channel, size: int) -> None:
    call = stub(channel).GetProduct(pb.GetProductRequest(sku="x" * size), timeout=15)
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_large_page_arrives_whole_and_compressed(channel: grpc.aio.Channel) -> None:
    pages = [
        await stub(channel).ListProducts(pb.ListProductsRequest(page_size=100), compression=compression)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip)
    ]
    assert len(pages[0].products) > 50
    assert pages[0] == pages[1]


async def test_the_spans_of_envoy_are_between_the_client_and_the_edge(
    shop: Shop, running: Envoy, channel: grpc.aio.Channel
) -> None:
    trace = Trace()
    await stub(channel).GetProduct(PRODUCT, metadata=[("traceparent", trace.begin())])
    outer, inner = sorted(await running.spans_of(trace.trace_id, 2), key=lambda span: span.kind)
    assert (outer.kind, inner.kind) == (SERVER, CLIENT)
    assert int.from_bytes(outer.parent_span_id, "big") == trace.parent
    assert inner.parent_span_id == outer.span_id
    edge = [span for span in shop.mesh.edge.spans() if trace_id_of(span) == trace.trace_id]
    assert f"{inner.span_id.hex()}" in {f"{span.parent.span_id:016x}" for span in edge if span.parent}


async def test_a_trace_without_a_client_begins_in_envoy(shop: Shop, running: Envoy) -> None:
    async with running.front.client() as client:
        trace_id = (await client.get("/v1/products/TEA-0001")).headers["X-Trace-Id"]
    outer, _ = sorted(await running.spans_of(trace_id, 2), key=lambda span: span.kind)
    assert not outer.parent_span_id
    assert {span.name for span in await shop.mesh.spans(trace_id)} >= {GET_PRODUCT[1:]}


async def test_a_deadline_reaches_the_edge_and_none_is_added(failing: tuple[Failing, Envoy]) -> None:
    edge, running = failing
    async with running.front.channel() as channel, running.front.client() as client:
        await stub(channel).ListProducts(pb.ListProductsRequest(), timeout=30)
        await stub(channel).ListProducts(pb.ListProductsRequest())
        await client.get("/v1/products", headers={"grpc-timeout": "30S"})
        await client.get("/v1/products")
    limits = [remaining is not None and 0 < remaining <= 30 for remaining in edge.remaining]
    assert (limits, edge.remaining[1::2]) == ([True, False, True, False], [None, None])


async def test_a_deadline_ends_a_call_down_to_the_leaf(shop: Shop, channel: grpc.aio.Channel) -> None:
    shop.backends.blocked_methods = CALLS
    assert await code_of(stub(channel).GetProduct(PRODUCT, timeout=0.5)) == "DEADLINE_EXCEEDED"
    await shop.until_cancelled(2)


async def test_a_cancelled_call_is_cancelled_down_to_the_leaf(shop: Shop, channel: grpc.aio.Channel) -> None:
    trace, shop.backends.blocked_methods = Trace(), CALLS
    call = stub(channel).GetProduct(PRODUCT, timeout=15, metadata=[("traceparent", trace.begin())])
    await shop.backends.until_reached(2)
    call.cancel()
    assert await status_in_the_edge(shop, trace) == "CANCELLED"


async def test_a_stream_of_json_that_is_reset_cancels_its_calls(shop: Shop, running: Envoy) -> None:
    trace, shop.backends.blocked_methods = Trace(), CALLS
    async with http2(running.front.address, running.front.context("h2")) as client:
        stream = await client.begin_get(READ, {"traceparent": trace.begin(), **PATIENT})
        await shop.backends.until_reached(2)
        await client.reset(stream)
        assert await status_in_the_edge(shop, trace) == "CANCELLED"


async def test_a_client_of_json_that_disconnects_cancels_its_calls(shop: Shop, running: Envoy) -> None:
    trace, shop.backends.blocked_methods = Trace(), CALLS
    _, writer = await asyncio.open_connection(*running.front.address, ssl=running.front.context("http/1.1"))
    writer.write(get(READ, traceparent=trace.begin(), **PATIENT))
    await shop.backends.until_reached(2)
    writer.close()
    assert await status_in_the_edge(shop, trace) == "CANCELLED"


async def status_in_the_edge(shop: Shop, trace: Trace) -> object:
    """The status of a call in the span of the edge, which waits until both calls of the backends are cancelled."""
    await shop.until_cancelled(2)
    spans = [span for span in await shop.mesh.spans(trace.trace_id) if span.name == GET_PRODUCT[1:]]
    return (spans[0].attributes or {})["rpc.response.status_code"]


async def test_an_edge_hears_of_the_client_only_from_envoy(failing: tuple[Failing, Envoy]) -> None:
    edge, running = failing
    names = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix", "forwarded")
    async with running.front.client() as client:
        await client.get("/v1/products", headers={**dict.fromkeys(names, "9.9.9.9"), "Host": "shop.test"})
    ((_, metadata),) = edge.calls
    assert [metadata.get(name) for name in names] == ["127.0.0.1", "https", None, None, None]


async def test_the_rest_of_http_has_the_host_and_the_client_of_the_request(shop: Shop, running: Envoy) -> None:
    trace = Trace()
    lies = {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "http"}
    async with running.front.client() as client:
        headers = {"traceparent": trace.begin(), "Host": "shop.test", **lies}
        assert (await client.get("/nothing", headers=headers)).status_code == 404
        assert [(await client.get(path)).status_code for path in ("/docs", "/readyz", "/metrics")] == [200, 200, 404]
    (span,) = await shop.mesh.spans(trace.trace_id)
    attributes = dict(span.attributes or {})
    names = ("client.address", "url.scheme", "server.address")
    assert [attributes[name] for name in names] == ["127.0.0.1", "https", "shop.test"]


REPEATED = {
    "a read": ("GetProduct", PRODUCT, {}, 3),
    "an order with a key": ("PlaceOrder", ORDER, {"idempotency-key": "k"}, 3),
    "a commit": ("CommitOrder", pb.CommitOrderRequest(order_id="x"), {}, 3),
    "an order without a key": ("PlaceOrder", ORDER, {}, 1),
    "one whose client asks for retries": (
        "PlaceOrder",
        ORDER,
        {"x-envoy-retry-grpc-on": "unavailable", "x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3"},
        1,
    ),
}


@pytest.mark.parametrize("kind", REPEATED)
async def test_only_what_may_be_repeated_is(failing: tuple[Failing, Envoy], kind: str) -> None:
    edge, running = failing
    method, request, metadata, times = REPEATED[kind]
    async with running.front.channel() as channel:
        call = getattr(stub(channel), method)(request, metadata=tuple(metadata.items()))
        assert await code_of(call) == "UNAVAILABLE"
    assert [name for name, _ in edge.calls] == [method] * times


@pytest.mark.parametrize(("headers", "times"), [({}, 1), ({"Idempotency-Key": "k"}, 3)])
async def test_an_order_in_json_is_repeated_only_with_a_key(
    failing: tuple[Failing, Envoy], headers: dict[str, str], times: int
) -> None:
    edge, running = failing
    async with running.front.client() as client:
        answer = await client.post("/v1/orders", json={"lines": []}, headers=headers)
    assert (answer.status_code, len(edge.calls)) == (503, times)


async def test_an_order_without_a_key_goes_to_the_other_edge_when_one_refuses_the_connection(shop: Shop) -> None:
    """Its port is closed after health checks have found it, so only the connection says that it is gone."""
    rest = [place.rest for place in shop.places]
    async with failing_edge() as (alive, address), AsyncExitStack() as stack:
        gone, other = await stack.enter_async_context(failing_edge())
        async with (
            envoy(shop.folder / "refused", shop.authority, rest, [address, other], 2) as running,
            running.front.channel() as channel,
        ):
            await stack.aclose()
            codes = [await code_of(stub(channel).PlaceOrder(ORDER)) for _ in range(4)]
    assert (codes, len(alive.calls), gone.calls) == (["UNAVAILABLE"] * 4, 4, [])


async def test_the_calls_of_one_connection_are_balanced_over_both_edges(
    shop: Shop, running: Envoy, channel: grpc.aio.Channel
) -> None:
    assert await edges_of(running, channel) == {place.rpc for place in shop.places}


async def edges_of(running: Envoy, channel: grpc.aio.Channel) -> set[str]:
    """The addresses of the edges that have some calls."""
    traces = [Trace() for _ in range(10)]
    for trace in traces:
        await stub(channel).GetProduct(PRODUCT, metadata=[("traceparent", trace.begin())])
    found = [await running.spans_of(trace.trace_id, 2) for trace in traces]
    attributes = [attribute for spans in found for span in spans for attribute in span.attributes]
    return {attribute.value.string_value for attribute in attributes if attribute.key == "upstream_address"}


async def test_an_edge_that_drains_gets_no_more_calls(shop: Shop) -> None:
    place, (other, _) = new_place(), shop.places
    async with shop.start(place, drain_seconds=LONG) as edge:
        rest, rpc = [other.rest, place.rest], [other.rpc, place.rpc]
        async with (
            envoy(shop.folder / "drain", shop.authority, rest, rpc, 2) as running,
            running.front.channel() as channel,
        ):
            edge.stop.request()
            await running.until_in_use(1)
            while await edges_of(running, channel) != {other.rpc}:
                pass  # the statistic changes before Envoy's workers do


async def test_an_edge_that_is_gone_fails_no_read_and_is_ejected_before_its_next_check(shop: Shop) -> None:
    place, (other, _) = new_place(), shop.places
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(shop.start(place))
        rest, rpc = [other.rest, place.rest], [other.rpc, place.rpc]
        running = await stack.enter_async_context(envoy(shop.folder / "gone", shop.authority, rest, rpc, 2))
        channel = await stack.enter_async_context(running.front.channel())
        edge.stop.request()
        await edge.task
        ejections = "cluster.edge_grpc.outlier_detection.ejections_enforced_consecutive_local_origin_failure"
        while not await running.count(ejections):
            await stub(channel).GetProduct(PRODUCT)


async def test_calls_in_flight_are_completed_before_envoy_stops(shop: Shop) -> None:
    shop.backends.blocked_methods = CALLS
    async with (
        in_front(shop, "stopping") as stopping,
        stopping.front.channel() as channel,
        http2(stopping.front.address, stopping.front.context("h2")) as client,
    ):
        call = stub(channel).GetProduct(PRODUCT, timeout=15)
        json_call = await client.begin_get(READ, PATIENT)
        await shop.backends.until_reached(4)
        stop = asyncio.create_task(stopping.stop())
        await stopping.front.until_refused()
        shop.backends.free.set()
        assert ((await call).product.sku, (await client.response(json_call)).status) == ("TEA-0001", 200)
        assert await client.until_goaway() is not None
        assert await stop == 0


@pytest.mark.timeout(120)
async def test_a_rolling_restart_loses_no_read_and_no_order_with_a_key(shop: Shop) -> None:
    places = new_place(), new_place()
    async with AsyncExitStack() as stack:
        edges = [await stack.enter_async_context(shop.start(place, drain_seconds=DRAIN)) for place in places]
        rest, rpc = [place.rest for place in places], [place.rpc for place in places]
        running = await stack.enter_async_context(envoy(shop.folder / "rolling", shop.authority, rest, rpc, 2))
        restarted = asyncio.Event()
        load = [asyncio.create_task(work(running, restarted.is_set)) for work in (read, read_json, order, order)]
        for edge, place in zip(edges, places, strict=True):
            edge.stop.request()
            await edge.task
            await running.until_in_use(1)
            await stack.enter_async_context(shop.start(place))
            await running.until_in_use(2)
        restarted.set()
        assert min(await asyncio.gather(*load)) > 10


async def read(running: Envoy, is_over: Callable[[], bool]) -> int:
    """Reads until the restart is over; returns the number of reads."""
    async with running.front.channel() as channel:
        for number in count():
            if is_over():
                return number
            assert (await stub(channel).GetProduct(PRODUCT)).product.sku == "TEA-0001"
    raise AssertionError


async def read_json(running: Envoy, is_over: Callable[[], bool]) -> int:
    """The same in JSON."""
    async with running.front.client() as client:
        for number in count():
            if is_over():
                return number
            assert (await client.get("/v1/products/TEA-0001")).status_code == 200
    raise AssertionError


async def order(running: Envoy, is_over: Callable[[], bool]) -> int:
    """Places and releases orders, each once: a repeat with its key is the same order."""
    async with running.front.channel() as channel:
        for number in count():
            if is_over():
                return number
            key = [("idempotency-key", secrets.token_hex(16))]
            placed = await stub(channel).PlaceOrder(ORDER, metadata=key)
            assert await stub(channel).PlaceOrder(ORDER, metadata=key) == placed
            await stub(channel).ReleaseOrder(pb.ReleaseOrderRequest(order_id=placed.order.order_id))
    raise AssertionError
