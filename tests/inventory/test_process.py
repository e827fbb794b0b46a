"""`python -m inventory` as an operator runs it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2

from aiomesh.inventory.v1 import inventory_pb2
from aiomesh.inventory.v1 import inventory_service_pb2 as pb
from aiomesh.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from meshkit.errors import ServiceError
from meshkit.status import service_errors
from meshkit.testing import FakeClock, SpanCapture
from tests.edge.mesh import start_inventory
from tests.service_process import channel_to, running

if TYPE_CHECKING:
    from pathlib import Path

    from aiomesh.inventory.v1.inventory_service_pb2_grpc import InventoryServiceAsyncStub

pytestmark = pytest.mark.timeout(120)  # they start processes


def reserve(sku: str, quantity: int = 1) -> pb.ReserveStockRequest:
    return pb.ReserveStockRequest(
        request_id=str(uuid.uuid4()),
        attempt_id=str(uuid.uuid4()),
        lines=[inventory_pb2.ReservationLine(sku=sku, quantity=quantity)],
        fingerprint="digest",
    )


async def outcome(stub: InventoryServiceAsyncStub, request: pb.ReserveStockRequest) -> str:
    try:
        with service_errors():
            await stub.ReserveStock(request, timeout=60)
    except ServiceError as error:
        return error.reason
    return "RESERVED"


async def final_outcome(stub: InventoryServiceAsyncStub, request: pb.ReserveStockRequest) -> str:
    """The outcome of a request that is retried while the database is unavailable on a busy machine."""
    while (found := await outcome(stub, request)) == "DATABASE_UNAVAILABLE":
        pass
    return found


async def health(channel: grpc.aio.Channel) -> object:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return (await check(health_pb2.HealthCheckRequest())).status


async def last_units(stub: InventoryServiceAsyncStub, sku: str, units: int) -> None:
    on_hand = (await stub.GetStock(pb.GetStockRequest(sku=sku))).stock.on_hand
    await stub.AdjustStock(pb.AdjustStockRequest(request_id=str(uuid.uuid4()), sku=sku, delta=units - on_hand))


async def test_two_processes_on_one_new_database_sell_the_last_fifty_units_once(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(running("inventory", database_url=database_url)) for _ in range(2)]
        channels = [await stack.enter_async_context(channel_to(process)) for process in processes]
        stubs = [InventoryServiceStub(channel) for channel in channels]
        await last_units(stubs[0], "TEA-0001", 50)
        outcomes = await asyncio.gather(*(final_outcome(stubs[turn % 2], reserve("TEA-0001")) for turn in range(200)))
        assert Counter(outcomes) == {"RESERVED": 50, "INSUFFICIENT_STOCK": 150}
        for stub in stubs:
            stock = (await stub.GetStock(pb.GetStockRequest(sku="TEA-0001"))).stock
            assert (stock.on_hand, stock.reserved, stock.available) == (50, 50, 0)


async def test_every_reservation_returned_survives_sigkill_and_no_other_units_are_held(database_url: str) -> None:
    requests = [reserve("TEA-0001") for _ in range(100)]
    answered: list[str] = []
    enough = asyncio.Event()

    async def order(stub: InventoryServiceAsyncStub, request: pb.ReserveStockRequest) -> None:
        await stub.ReserveStock(request)
        answered.append(request.request_id)
        if len(answered) == 20:
            enough.set()

    async with running("inventory", database_url=database_url) as process, channel_to(process) as channel:
        stub = InventoryServiceStub(channel)
        orders = [asyncio.create_task(order(stub, request)) for request in requests]
        await enough.wait()
        process.process.kill()
        await asyncio.gather(*orders, return_exceptions=True)
    assert 20 <= len(answered) < 100

    async with (
        start_inventory(database_url, SpanCapture("inventory"), FakeClock(datetime.now(UTC))) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = InventoryServiceStub(channel)
        kept = set()
        for request in requests:
            try:
                await stub.GetReservation(pb.GetReservationRequest(reservation_id=request.request_id))
                kept.add(request.request_id)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
        stock = (await stub.GetStock(pb.GetStockRequest(sku="TEA-0001"))).stock
    assert kept >= set(answered)
    assert stock.reserved == len(kept)


async def test_the_sweeper_releases_an_expired_reservation_without_a_request(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'inventory.db'}"
    settings = {"database_url": url, "reservation_ttl_seconds": "0.2", "sweep_seconds": "0.05"}
    async with running("inventory", **settings) as process, channel_to(process) as channel:
        stub = InventoryServiceStub(channel)
        made = (await stub.ReserveStock(reserve("TEA-0001", 7))).reservation
        await process.log_record("swept expired reservations")
        stock = (await stub.GetStock(pb.GetStockRequest(sku="TEA-0001"))).stock
        now = await stub.GetReservation(pb.GetReservationRequest(reservation_id=made.reservation_id))
    assert (stock.on_hand, stock.reserved) == (500, 0)
    assert now.reservation.state == inventory_pb2.Reservation.STATE_EXPIRED


async def test_a_process_starts_without_its_database_and_serves_once_it_is_available(tmp_path: Path) -> None:
    directory = tmp_path / "later"
    settings = {"database_url": f"sqlite:///{directory / 'inventory.db'}", "sweep_seconds": "0.02"}
    async with running("inventory", **settings) as process:
        async with grpc.aio.insecure_channel(await process.address()) as channel:
            await process.log_record("cannot sweep expired reservations")
            assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await outcome(InventoryServiceStub(channel), reserve("TEA-0001")) == "DATABASE_UNAVAILABLE"
        directory.mkdir()
        async with channel_to(process) as channel:
            assert await outcome(InventoryServiceStub(channel), reserve("TEA-0001")) == "RESERVED"
    assert sum("cannot sweep expired reservations" in line for line in process.lines) == 1, "an outage is logged once"
