"""Hostile clients of a gRPC port: every other caller is served, and the process stays small."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
import pytest_asyncio

from aiomesh.inventory.v1 import inventory_service_pb2 as pb
from tests import http2_attacks, service_process
from tests.http2_attacks import MEMORY, attack, bomb, peak_growth, reset_rapidly, unfinished
from tests.tracebox import running as tracebox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SERVICE_BYTES, TRACEBOX_BYTES = 256 * 1024, 4 * 1024 * 1024
GET_STOCK = "/aiomesh.inventory.v1.InventoryService/GetStock"


@dataclass(frozen=True)
class Port:
    """The gRPC port of a process, a method there, and its longest message."""

    process: psutil.Process
    address: str
    method: str
    longest: int
    call: Callable[[bytes], Awaitable[bytes]]
    request: bytes


@asynccontextmanager
async def inventory() -> AsyncIterator[Port]:
    async with service_process.running("inventory") as started, service_process.channel_to(started) as channel:
        process, request = psutil.Process(started.process.pid), pb.GetStockRequest(sku="TEA-0001").SerializeToString()
        call: Any = channel.unary_unary(GET_STOCK)
        yield Port(process, await started.address(), GET_STOCK, SERVICE_BYTES, call, request)


@asynccontextmanager
async def otlp() -> AsyncIterator[Port]:
    async with tracebox.running() as started:
        process, channel = psutil.Process(started.process.process.pid), started.channel
        call: Any = channel.unary_unary(tracebox.EXPORT)
        yield Port(process, started.otlp, tracebox.EXPORT, TRACEBOX_BYTES, call, b"")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[inventory, otlp])
async def port(request: pytest.FixtureRequest) -> AsyncIterator[Port]:
    async with AsyncExitStack() as stack:
        started: Port = await stack.enter_async_context(request.param())
        for _ in range(20):  # its memory at rest
            await started.call(started.request)
        yield started


async def call_until(done: asyncio.Task[None], port: Port) -> int:
    """Calls one after the other until then; returns their number. Fails if one fails."""
    calls = 0
    while not done.done():
        await port.call(port.request)
        calls += 1
    return calls


@pytest.mark.parametrize("name", ["rapid reset", "HPACK bomb", "unfinished messages"])
async def test_a_hostile_client_leaves_every_other_caller_served_and_memory_bounded(port: Port, name: str) -> None:
    send = {"rapid reset": reset_rapidly, "HPACK bomb": bomb}.get(name, unfinished(port.longest))
    attacking = asyncio.create_task(attack(port.address, port.method, send))
    growth, calls = await asyncio.gather(peak_growth(port.process, attacking), call_until(attacking, port))
    assert calls
    assert growth < MEMORY


async def test_a_message_above_the_limit_is_refused_with_both_sizes(port: Port) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await port.call(b"\0" * (port.longest + 1))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"({port.longest + 1} vs. {port.longest})" in (refused.value.details() or "")


async def test_a_connection_has_a_limited_number_of_streams(port: Port) -> None:
    async with http2_attacks.connect(port.address) as connection:
        streams = len(await connection.streams())
    assert streams <= 100
    assert streams * port.longest <= 64_000_000
