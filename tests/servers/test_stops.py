"""How each server stops: what is completed, what is refused, and what its clients are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from h2.errors import ErrorCodes

from tests.servers.shop import LONG, PATIENT, READ, on_http2, on_servers

if TYPE_CHECKING:
    from tests.servers.shop import Edge, Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_GOAWAY = "it closes the connection without a GOAWAY: https://github.com/pgjones/hypercorn/pull/374"
NO_ERROR = (
    "it resets new streams with NO_ERROR, not REFUSED_STREAM: "
    "https://github.com/pgjones/hypercorn/blob/0.18.0/src/hypercorn/protocol/h2.py"
)


@on_servers()
async def test_while_it_drains_the_edge_is_not_ready_and_serves(shop: Shop, server: str) -> None:
    async with shop.start(server, drain_seconds=LONG) as edge:
        edge.stop.request()
        async with shop.mesh.http.get(f"http://{edge.target}/readyz") as probe:
            assert (probe.status, probe.headers["Connection"]) == (503, "close")
        async with shop.mesh.http.get(f"http://{edge.target}{READ}") as response:
            assert (response.status, response.headers["Connection"]) == (200, "close")


@on_http2()
async def test_while_it_drains_the_edge_serves_http_2(shop: Shop, server: str) -> None:
    async with shop.start(server, drain_seconds=LONG) as edge, edge.streams() as client:
        edge.stop.request()
        assert [(await client.get(path)).status for path in ("/readyz", READ)] == [503, 200]


@on_servers()
async def test_a_request_in_flight_is_completed(shop: Shop, server: str) -> None:
    shop.backends.blocked_methods = frozenset({"GetStock"})
    async with shop.start(server, grace_seconds=LONG) as edge:
        request = asyncio.create_task(shop.mesh.http.get(f"http://{edge.target}{READ}", headers=PATIENT))
        await stop_within_a_request(shop, edge)
        shop.backends.free.set()
        async with await request as response:
            assert response.status == 200
        await edge.task


@on_http2()
async def test_a_stream_in_flight_is_completed(shop: Shop, server: str) -> None:
    shop.backends.blocked_methods = frozenset({"GetStock"})
    async with shop.start(server, grace_seconds=LONG) as edge, edge.streams() as client:
        stream = await client.begin_get(READ, PATIENT)
        await stop_within_a_request(shop, edge)
        shop.backends.free.set()
        assert (await client.response(stream)).status == 200
        await edge.task


@on_servers()
async def test_a_request_that_outlasts_the_grace_gets_a_503(shop: Shop, server: str) -> None:
    shop.backends.blocked_methods = frozenset({"GetStock"})
    async with shop.start(server, grace_seconds=LONG) as edge:
        request = asyncio.create_task(shop.mesh.http.get(f"http://{edge.target}{READ}", headers=PATIENT))
        await stop_within_a_request(shop, edge)
        edge.stop.request()
        async with await request as response:
            assert (response.status, (await response.json())["reason"]) == (503, "SHUTTING_DOWN")
        await edge.task


@on_http2()
async def test_a_stream_that_outlasts_the_grace_gets_a_503(shop: Shop, server: str) -> None:
    shop.backends.blocked_methods = frozenset({"GetStock"})
    async with shop.start(server, grace_seconds=LONG) as edge, edge.streams() as client:
        stream = await client.begin_get(READ, PATIENT)
        await stop_within_a_request(shop, edge)
        edge.stop.request()
        assert (await client.response(stream)).json["reason"] == "SHUTTING_DOWN"
        await edge.task


@on_http2(hypercorn=NO_GOAWAY)
async def test_an_idle_connection_is_told_to_go_away(shop: Shop, server: str) -> None:
    async with shop.start(server) as edge, edge.streams() as client:
        edge.stop.request()
        assert await client.until_goaway() is not None
        await edge.task


@on_http2(hypercorn=NO_ERROR)
async def test_a_stream_that_comes_too_late_may_be_repeated(shop: Shop, server: str) -> None:
    shop.backends.blocked_methods = frozenset({"GetStock"})
    async with shop.start(server, grace_seconds=LONG) as edge, edge.streams() as client:
        await client.begin_get(READ, PATIENT)
        await stop_within_a_request(shop, edge)
        late = await client.begin_get("/livez")
        while await client.is_served(late):  # the connection may learn of the stop after the listener
            late = await client.begin_get("/livez")
        is_beyond = client.goaway is not None and client.goaway < late
        assert is_beyond or client.reset_of(late) == ErrorCodes.REFUSED_STREAM


@on_servers()
async def test_a_client_that_keeps_its_connection_does_not_delay_the_end(shop: Shop, server: str) -> None:
    async with shop.start(server, grace_seconds=LONG) as edge:
        _, silent = await asyncio.open_connection(*edge.address)
        reader, idle = await asyncio.open_connection(*edge.address)
        idle.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readline()
        edge.stop.request()
        await edge.task
        silent.close()
        idle.close()


async def stop_within_a_request(shop: Shop, edge: Edge) -> None:
    """Stops the edge while a request waits for its stock."""
    await shop.backends.until_reached(1)
    edge.stop.request()
    await edge.until_refused()
