"""A stopping edge completes every request that it has begun to read, and does not wait for ever."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from inventory.servicer import InventoryServicer
from meshkit.fastapi.server import listen_socket
from tests.edge.mesh import Answer, Mesh, Wire, assert_problem, get, mesh, post_order, wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONG = 60.0
"""Seconds of a drain or a grace that no test waits for."""

PATIENT = {"X_Request_Timeout_Ms": "15000"}
READ = get("/v1/products/TEA-0001", **PATIENT)


class Slow:
    """An inventory whose calls wait until `free` is set."""

    def __init__(self) -> None:
        self.reached, self.free, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(self) -> None:
        self.reached.set()
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def servicer(self) -> Callable[..., InventoryServicer]:
        slow = self

        class SlowInventory(InventoryServicer):
            async def GetStock(self, request: Any, context: Any) -> Any:
                await slow.hold()
                return await super().GetStock(request, context)

            async def ReserveStock(self, request: Any, context: Any) -> Any:
                await slow.hold()
                return await super().ReserveStock(request, context)

        return SlowInventory


@pytest.fixture
def slow() -> Slow:
    return Slow()


async def until_drained(shop: Mesh) -> None:
    """Waits until the edge accepts no more connections."""
    while True:
        try:
            async with wire(shop):
                await asyncio.sleep(0)
        except OSError:
            return


async def begin(connection: Wire, part: bytes) -> None:
    """Sends a probe and the first part of a request together. The response of the probe shows that both were read."""
    await connection.send(get("/livez") + part)
    await connection.answer()


def closes(answer: Answer) -> bool:
    return answer.headers.get("Connection") == "close"


async def test_while_the_edge_drains_every_response_closes_its_connection(tmp_path: Path) -> None:
    async with mesh(tmp_path, drain_seconds=LONG) as shop, wire(shop) as before:
        await before.send(get("/livez"))
        assert not closes(await before.answer())
        shop.stop.request()
        await before.send(READ)
        answer = await before.answer()
        assert (answer.status, closes(answer)) == (200, True)
        assert await before.rest() == b""
        async with wire(shop) as after:
            await after.send(get("/v1/nothing"))
            answer = await after.answer()
            assert (answer.status, closes(answer)) == (404, True)
            assert await after.rest() == b""


async def test_while_the_edge_drains_it_is_alive_but_not_ready(tmp_path: Path) -> None:
    async with mesh(tmp_path, drain_seconds=LONG) as shop:
        assert (await shop.get("/readyz")).status == 200
        shop.stop.request()
        refusal = await shop.get("/readyz")
        assert (refusal.status, refusal.headers["Content-Type"]) == (503, "application/problem+json")
        assert (refusal.body["reason"], refusal.body["status"]) == ("SHUTTING_DOWN", 503)
        assert (await shop.get("/livez")).status == 200


async def test_after_the_drain_the_edge_closes_idle_connections_and_accepts_no_new_ones(tmp_path: Path) -> None:
    async with mesh(tmp_path) as shop, wire(shop) as unused, wire(shop) as idle:
        await idle.send(get("/livez"))
        await idle.answer()
        shop.stop.request()
        assert await unused.rest() == b""
        assert await idle.rest() == b""
        await shop.server_task
        await until_drained(shop)


async def test_a_request_in_flight_is_completed(tmp_path: Path, slow: Slow) -> None:
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=LONG) as shop,
        wire(shop) as connection,
    ):
        await connection.send(READ)
        await slow.reached.wait()
        shop.stop.request()
        await until_drained(shop)
        slow.free.set()
        answer = await connection.answer()
        assert (answer.status, closes(answer)) == (200, True)
        assert await connection.rest() == b""
        await shop.server_task


@pytest.mark.parametrize("cut", [1, 20, -1])
async def test_a_request_with_a_half_sent_head_is_completed(tmp_path: Path, cut: int) -> None:
    async with mesh(tmp_path, grace_seconds=LONG) as shop, wire(shop) as connection:
        await begin(connection, READ[:cut])
        shop.stop.request()
        await until_drained(shop)
        await connection.send(READ[cut:])
        answer = await connection.answer()
        assert (answer.status, closes(answer)) == (200, True)
        assert await connection.rest() == b""
        await shop.server_task


async def test_a_request_with_a_half_sent_body_is_completed(tmp_path: Path) -> None:
    request = post_order()
    async with mesh(tmp_path, grace_seconds=LONG) as shop, wire(shop) as connection:
        await begin(connection, request[:-10])
        shop.stop.request()
        await until_drained(shop)
        await connection.send(request[-10:])
        answer = await connection.answer()
        assert (answer.status, closes(answer)) == (201, True)
        assert await connection.rest() == b""
        await shop.server_task


async def test_the_body_of_a_rejected_request_is_read_to_its_end(tmp_path: Path) -> None:
    request = post_order(X_Request_Timeout_Ms="0")
    async with mesh(tmp_path, grace_seconds=LONG) as shop, wire(shop) as connection:
        await begin(connection, request[:-10])
        shop.stop.request()
        assert_problem(await connection.answer(), 400, "INVALID_TIMEOUT")
        await until_drained(shop)
        await connection.send(request[-10:])
        assert await connection.rest() == b""
        await shop.server_task


async def test_all_requests_of_a_pipeline_are_completed(tmp_path: Path, slow: Slow) -> None:
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=LONG) as shop,
        wire(shop) as connection,
    ):
        await connection.send(READ * 3)
        await slow.reached.wait()
        shop.stop.request()
        await until_drained(shop)
        slow.free.set()
        answers = [await connection.answer() for _ in range(3)]
        assert [(answer.status, closes(answer)) for answer in answers] == [(200, False), (200, False), (200, True)]
        assert await connection.rest() == b""
        await shop.server_task


async def test_all_requests_of_a_pipeline_sent_during_the_drain_are_completed(tmp_path: Path) -> None:
    async with mesh(tmp_path, drain_seconds=LONG) as shop, wire(shop) as connection:
        shop.stop.request()
        await connection.send(READ + get("/v1/nothing") + READ)
        answers = [await connection.answer() for _ in range(3)]
        assert [(answer.status, closes(answer)) for answer in answers] == [(200, False), (404, False), (200, True)]
        assert await connection.rest() == b""


async def test_a_half_sent_request_behind_another_one_is_completed(tmp_path: Path, slow: Slow) -> None:
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=LONG) as shop,
        wire(shop) as connection,
    ):
        await connection.send(READ + READ[:20])
        await slow.reached.wait()
        shop.stop.request()
        await until_drained(shop)
        slow.free.set()
        first = await connection.answer()
        await connection.send(READ[20:])
        second = await connection.answer()
        assert [(answer.status, closes(answer)) for answer in (first, second)] == [(200, False), (200, True)]
        assert await connection.rest() == b""
        await shop.server_task


async def test_a_connection_with_an_endless_head_is_closed_after_the_grace(tmp_path: Path) -> None:
    async with mesh(tmp_path, grace_seconds=0.2) as shop, wire(shop) as connection:
        await begin(connection, READ[:20])
        shop.stop.request()
        await shop.server_task
        assert await connection.rest() == b""


async def test_a_request_with_an_endless_body_is_503_after_the_grace(tmp_path: Path) -> None:
    async with mesh(tmp_path, grace_seconds=0.2) as shop, wire(shop) as connection:
        await begin(connection, post_order()[:-10])
        shop.stop.request()
        await shop.server_task
        assert_problem(await connection.answer(), 503, "SHUTTING_DOWN")
        assert await connection.rest() == b""


async def test_a_request_that_takes_longer_than_the_grace_is_503_and_cancelled(tmp_path: Path, slow: Slow) -> None:
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=0.2) as shop,
        wire(shop) as connection,
    ):
        await connection.send(READ)
        await slow.reached.wait()
        shop.stop.request()
        await shop.server_task
        answer = await connection.answer()
        assert_problem(answer, 503, "SHUTTING_DOWN")
        assert answer.headers["Retry-After"] == "1"
        await slow.cancelled.wait()


async def test_a_second_request_to_stop_skips_the_drain_and_the_grace(tmp_path: Path, slow: Slow) -> None:
    settings: dict[str, Any] = {"drain_seconds": LONG, "grace_seconds": LONG}
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer(), **settings) as shop,
        wire(shop) as busy,
        wire(shop) as half,
    ):
        await begin(half, READ[:20])
        await busy.send(READ)
        await slow.reached.wait()
        shop.stop.request()
        shop.stop.request()
        await shop.server_task
        assert_problem(await busy.answer(), 503, "SHUTTING_DOWN")
        assert await half.rest() == b""


async def test_a_cancelled_order_is_still_completed(tmp_path: Path, slow: Slow) -> None:
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=LONG) as shop,
        wire(shop) as connection,
    ):
        await connection.send(post_order(Idempotency_Key="k"))
        await slow.reached.wait()
        shop.stop.request()
        shop.stop.request()
        assert_problem(await connection.answer(), 503, "SHUTTING_DOWN")
        slow.free.set()
        await shop.server_task
    async with mesh(tmp_path) as shop:
        assert (await shop.stock("TEA-0001"))["reserved"] == 2
        assert (await shop.order(("TEA-0001", 2), key="k")).status == 201
        assert (await shop.stock("TEA-0001"))["reserved"] == 2


async def test_an_endless_order_does_not_prevent_the_shutdown(tmp_path: Path, slow: Slow) -> None:
    async with (
        mesh(tmp_path, inventory_servicer=slow.servicer(), grace_seconds=LONG) as shop,
        wire(shop) as connection,
    ):
        await connection.send(post_order(X_Request_Timeout_Ms="30000"))
        await slow.reached.wait()
        shop.stop.request()
        shop.stop.request()
        await shop.server_task
        assert_problem(await connection.answer(), 503, "SHUTTING_DOWN")
    await slow.cancelled.wait()


def test_responses_do_not_wait_for_acknowledgements_of_the_client() -> None:
    with listen_socket("127.0.0.1:0") as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
