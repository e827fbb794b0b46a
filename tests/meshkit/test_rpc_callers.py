"""Callers cancel, abandon or close the calls of a meshkit channel at any moment; every span ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.meshkit.echo import SERVICE, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshkit.testing import SpanCapture
    from tests.meshkit.echo import Echo

Context = grpc.aio.ServicerContext[bytes, bytes]

ARITIES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
TICKS = 20
"""More iterations of the event loop than it takes to start a call."""


def begin(service: Echo, arity: str, **options: Any) -> Any:
    method = getattr(service.channel, arity)(f"/{SERVICE}/{arity.title().replace('_', '')}")
    return method(b"1" if arity.startswith("unary") else iter([b"1"]), **options)


async def finish(call: Any) -> None:
    if hasattr(call, "__await__"):
        await call
    else:
        async for _ in call:
            pass


async def codes(capture: SpanCapture, count: int) -> list[object]:
    """The status codes of the spans, once `count` have ended."""
    while len(capture.spans()) < count:
        await asyncio.sleep(0)
    return [(span.attributes or {})["rpc.response.status_code"] for span in capture.spans()]


class Endless:
    """Handlers that run until they are cancelled, and their number."""

    def __init__(self) -> None:
        self.running = 0

    async def respond(self, request: object, context: Context) -> bytes:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        return b""

    async def stream(self, request: object, context: Context) -> AsyncIterator[bytes]:
        yield b"1"
        yield await self.respond(request, context)

    @property
    def handlers(self) -> dict[str, Any]:
        return {
            name: self.stream if name.endswith("Stream") else self.respond
            for name in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
        }


@pytest.mark.parametrize("leaves", ["the task", "the call"])
@pytest.mark.parametrize("arity", ARITIES)
async def test_a_call_ends_with_its_caller_at_any_moment(arity: str, leaves: str) -> None:
    endless, calls = Endless(), []

    async def call(service: Echo) -> None:
        calls.append(begin(service, arity, timeout=60))
        await finish(calls[-1])

    async with echo(**endless.handlers, limit=60) as service:
        await service.channel.channel_ready()
        for ticks in range(1, TICKS):
            task = asyncio.create_task(call(service))
            for _ in range(ticks):
                await asyncio.sleep(0)
            assert (task if leaves == "the task" else calls[-1]).cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await codes(service.client, ticks) == ["CANCELLED"] * ticks
        while endless.running:
            await asyncio.sleep(0)
        assert len(service.client.spans()) == TICKS - 1


@pytest.mark.parametrize("arity", ARITIES)
async def test_a_call_that_cannot_be_sent_ends_its_span(arity: str) -> None:
    async with echo(**Endless().handlers) as service:
        call = begin(service, arity, metadata=(("told-bin", "text"),))
        with pytest.raises(TypeError):
            await finish(call)
        assert await codes(service.client, 1) == ["CANCELLED"]


@pytest.mark.parametrize("arity", ARITIES)
async def test_a_closing_channel_lets_calls_finish_within_the_grace_and_accepts_no_more(arity: str) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def respond(request: object, context: Context) -> bytes:
        begun.set()
        await release.wait()
        return b"2"

    async def stream(request: object, context: Context) -> AsyncIterator[bytes]:
        yield b"1"
        yield await respond(request, context)

    handlers: dict[str, Any] = {
        "UnaryUnary": respond,
        "UnaryStream": stream,
        "StreamUnary": respond,
        "StreamStream": stream,
    }
    async with echo(**handlers) as service:
        call = asyncio.create_task(finish(begin(service, arity)))
        await begun.wait()
        closing = asyncio.create_task(service.channel.close(10))
        await asyncio.sleep(0)
        with pytest.raises(grpc.aio.UsageError):
            begin(service, arity)
        release.set()
        await asyncio.gather(call, closing)
        assert await codes(service.client, 1) == ["OK"]


@pytest.mark.parametrize("arity", ["stream_unary", "stream_stream"])
async def test_a_closing_channel_cancels_a_call_started_at_the_same_moment(arity: str) -> None:
    async with echo(**Endless().handlers) as service:
        call = begin(service, arity)
        await service.channel.close()
        with pytest.raises(asyncio.CancelledError):
            await finish(call)
        assert await codes(service.client, 1) == ["CANCELLED"]


async def test_the_trace_context_of_a_call_replaces_the_one_in_its_metadata() -> None:
    async def traces(request: bytes, context: Context) -> bytes:
        metadata = context.invocation_metadata() or ()
        return " ".join(str(value) for key, value in metadata if key == "traceparent").encode()

    old = f"00-{'a' * 32}-{'b' * 16}-01"
    async with echo(UnaryUnary=traces) as service:
        [trace] = (await service.unary(metadata=(("traceparent", old),))).split()
    assert trace != old.encode()
