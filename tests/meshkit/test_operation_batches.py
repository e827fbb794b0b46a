"""The native memory of calls is freed, however they end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from meshkit.client.channel import open_channel
from tests.meshkit.echo import SERVICE, echo

if TYPE_CHECKING:
    from tests.meshkit.echo import Echo

Context = grpc.aio.ServicerContext[bytes, bytes]

CALLS, ROUNDS = 50, 5

LIMIT = 800
"""The most native bytes that a call may keep. A leak of the client's batch is 1200, of the server's 20 000 here."""

DETAILS = "a" * 20_000
"""The details of the status that the handler sends to nobody."""


class MallocInfo(ctypes.Structure):
    """The struct `mallinfo2` of glibc."""

    _fields_ = (
        ("arena_to_hblks", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),  # bytes of large blocks
        ("usmblks_and_fsmblks", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),  # bytes of other blocks
        ("fordblks_and_keepcost", ctypes.c_size_t * 2),
    )


def native_bytes() -> int:
    """What is in use of malloc's memory. Python's small objects come from an allocator of their own."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("only glibc, from 2.33 on, counts malloc's memory")
    mallinfo2.restype = MallocInfo
    gc.collect()
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


class Stubborn:
    """A handler that answers `hello` at once; other requests it ends with a status after their client has left."""

    def __init__(self) -> None:
        self.arrived, self.left = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def respond(self, request: bytes, context: Context) -> bytes:
        if request != b"hello":
            self.arrived.release()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            self.left.release()
            await context.abort(grpc.StatusCode.ABORTED, DETAILS)
        return request

    async def cancelled_calls(self, service: Echo) -> None:
        calls = [asyncio.create_task(service.unary(b"stay")) for _ in range(CALLS)]
        await times(CALLS, self.arrived)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await times(CALLS, self.left)
        await service.unary()
        service.client.exporter.clear()
        service.server.exporter.clear()


async def times(count: int, semaphore: asyncio.Semaphore) -> None:
    for _ in range(count):
        await semaphore.acquire()


async def test_cancelled_calls_keep_no_native_memory_of_client_and_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # pytest keeps the lines of the log
    handler, kept = Stubborn(), []
    async with echo(limit=60.0, UnaryUnary=handler.respond) as service:
        for _ in range(ROUNDS):
            before = native_bytes()
            await handler.cancelled_calls(service)
            kept.append((native_bytes() - before) / CALLS)
    assert min(kept[1:]) < LIMIT, kept  # the first round warms up


async def test_calls_of_two_event_loops_end_in_their_own() -> None:
    async def calls(service: Echo) -> list[bytes]:
        async with open_channel(
            service.address, service=SERVICE, repeatable=(), limit=60.0, telemetry=service.client.telemetry
        ) as channel:
            method: Any = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
            asyncio.get_running_loop().set_debug(True)
            return [await method(b"hello") for _ in range(CALLS)]

    async with echo(limit=60.0, UnaryUnary=Stubborn().respond) as service:
        other, mine = await asyncio.gather(asyncio.to_thread(lambda: asyncio.run(calls(service))), calls(service))
    assert other == mine == [b"hello"] * CALLS
