"""Channels call only servers whose service is SERVING."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from meshkit.client.channel import open_channel
from meshkit.server.health import NOT_SERVING, SERVING
from meshkit.testing import SpanCapture
from tests.meshkit.echo import SERVICE, Echo, echo


async def answer(request: bytes, context: object) -> bytes:
    return request


async def test_a_draining_server_gets_no_calls_while_another_serves() -> None:
    async with echo(UnaryUnary=answer) as draining, echo(UnaryUnary=answer) as other:
        both = f"ipv4:{draining.address},{other.address}"
        client = SpanCapture("client")
        async with open_channel(both, service=SERVICE, repeatable=(), limit=5.0, telemetry=client.telemetry) as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
            while not (draining.server.spans() and other.server.spans()):
                await call(b"before")
            await draining.health.drain()
            while await _reached(call, draining.server):
                pass
            for _ in range(20):
                assert not await _reached(call, draining.server)
            assert len(other.server.spans()) > 20


async def _reached(call: Any, server: SpanCapture) -> bool:
    """Whether one of two consecutive calls reached the server."""
    before = len(server.spans())
    await call(b"")
    await call(b"")
    return len(server.spans()) > before


async def test_a_waiting_channel_calls_a_server_that_starts_to_serve() -> None:
    async with echo(UnaryUnary=answer) as served:
        await served.health._publish(NOT_SERVING)
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await served.unary()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not served.server.spans()
        await served.health._publish(SERVING)
        while not await _answers(served):
            await asyncio.sleep(0.001)


async def _answers(served: Echo) -> bool:
    try:
        await served.unary()
    except grpc.aio.AioRpcError:
        return False
    return True
