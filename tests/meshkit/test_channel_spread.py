"""A channel with many calls in flight: no server refuses one because its connection has too many."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from meshkit.client.channel import open_channel
from meshkit.client.spread import CALLS
from meshkit.testing import SpanCapture
from tests.meshkit.echo import SERVICE, Echo, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MANY = 8 * CALLS


class Held:
    """A handler whose calls wait until `release`; counts them by connection."""

    def __init__(self) -> None:
        self.connections: Counter[str] = Counter()
        self.begun = asyncio.Semaphore(0)
        self.release = asyncio.Event()

    async def __call__(self, request: bytes, context: Any) -> bytes:
        self.connections[context.peer()] += 1
        self.begun.release()
        await self.release.wait()
        return request


def channel_to(served: Echo) -> Any:
    telemetry = SpanCapture("client").telemetry
    return open_channel(served.address, service=SERVICE, repeatable=(), limit=60, telemetry=telemetry)


async def start_held(call: Callable[[bytes], Any], held: Held, number: int) -> list[asyncio.Future[bytes]]:
    """Starts so many calls, and waits until each is with the server."""
    calls = [asyncio.ensure_future(call(b"x")) for _ in range(number)]
    for _ in calls:
        await held.begun.acquire()
    return calls


@pytest.mark.timeout(120)
async def test_no_call_of_a_burst_is_refused() -> None:
    """A plain channel of gRPC loses more than half of these."""

    async def answer(request: bytes, context: object) -> bytes:
        return request

    async with echo(UnaryUnary=answer) as served, channel_to(served) as channel:
        call = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
        assert await asyncio.gather(*(call(b"x") for _ in range(MANY))) == [b"x"] * MANY


async def test_a_connection_has_at_most_half_of_the_calls_that_a_server_takes() -> None:
    held = Held()
    async with echo(UnaryUnary=held) as served, channel_to(served) as channel:
        call = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
        calls = await start_held(call, held, CALLS)
        assert len(held.connections) == 1
        calls += await start_held(call, held, CALLS + 1)
        assert sorted(held.connections.values()) == [1, CALLS, CALLS]
        held.release.set()
        await asyncio.gather(*calls)


async def test_few_calls_use_the_first_connection_again() -> None:
    held = Held()
    async with echo(UnaryUnary=held) as served, channel_to(served) as channel:
        call = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
        calls = await start_held(call, held, CALLS)
        (first,) = held.connections
        calls += await start_held(call, held, 1)
        for started in calls[1:]:
            started.cancel()
        await asyncio.gather(*calls[1:], return_exceptions=True)
        held.connections.clear()
        await start_held(call, held, CALLS - 1)
        assert held.connections == {first: CALLS - 1}


async def test_calls_whose_write_fails_count_once() -> None:
    """grpc.aio 1.82 runs the done callbacks of such a call twice."""
    held = Held()

    async def refuse(requests: AsyncIterator[bytes], context: Any) -> bytes:
        await anext(requests)
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no more")
        raise AssertionError

    async with echo(UnaryUnary=held, StreamUnary=refuse) as served, channel_to(served) as channel:
        upload = channel.stream_unary(f"/{SERVICE}/StreamUnary")
        for _ in range(3):
            call = upload()
            with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
                while True:
                    await call.write(b"x")
            with pytest.raises(grpc.aio.AioRpcError):  # with its status the one before is here, too
                await upload([b"x"])
        calls = await start_held(channel.unary_unary(f"/{SERVICE}/UnaryUnary"), held, CALLS + 1)
        assert sorted(held.connections.values()) == [1, CALLS]
        held.release.set()
        await asyncio.gather(*calls)


async def test_closing_ends_the_calls_of_every_connection() -> None:
    held = Held()
    async with echo(UnaryUnary=held) as served:
        async with channel_to(served) as channel:
            calls = await start_held(channel.unary_unary(f"/{SERVICE}/UnaryUnary"), held, CALLS + 1)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
