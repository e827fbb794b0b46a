"""A channel recovers soon after its service gets an address, without losing a call."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import Any

import grpc
import pytest

from meshkit.client.channel import open_channel
from meshkit.server.health import NOT_SERVING
from meshkit.testing import SpanCapture
from tests.meshkit.echo import SERVICE, echo
from tests.meshkit.names import dns


async def answer(request: bytes, context: object) -> bytes:
    return request


async def fails(call: Any) -> bool:
    return await call(b"").code() is grpc.StatusCode.UNAVAILABLE


def channel_to(server: str, port: str) -> Any:
    telemetry = SpanCapture("client").telemetry
    return open_channel(
        f"dns://{server}/echo.test:{port}", service=SERVICE, repeatable=(), limit=15, telemetry=telemetry
    )


async def test_a_name_with_a_late_address_is_resolved_again_within_seconds() -> None:
    """Without renewal gRPC would wait for 1, 1.6, 2.6, 4.1 seconds and so on: 18 s for eight queries of two records."""
    async with (
        dns() as (server, names),
        echo(UnaryUnary=answer) as served,
        channel_to(server, served.address.rpartition(":")[2]) as channel,
    ):
        call = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
        while names.queries < 16:
            assert await fails(call)
            await asyncio.sleep(0.01)
        names.address = IPv4Address("127.0.0.1")
        while await fails(call):
            await asyncio.sleep(0.01)


async def test_a_call_on_a_replaced_channel_finishes() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, context: object) -> bytes:
        if request:
            begun.set()
            await go_on.wait()
        return request

    async with dns() as (server, names), echo(UnaryUnary=wait) as old:
        port = old.address.rpartition(":")[2]
        names.address = IPv4Address("127.0.0.1")
        async with echo(UnaryUnary=answer, listen=f"127.0.0.2:{port}") as new, channel_to(server, port) as channel:
            call = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
            waiting = asyncio.ensure_future(call(b"long"))
            await begun.wait()
            await old.health._publish(NOT_SERVING)
            while not await fails(call):
                pass
            names.address = IPv4Address("127.0.0.2")
            while await fails(call):
                await asyncio.sleep(0.01)
            assert new.server.spans()
            go_on.set()
            assert await waiting == b"long"


async def test_a_call_started_during_the_replacement_finishes() -> None:
    async with (
        dns() as (server, names),
        echo(UnaryUnary=answer) as served,
        channel_to(server, served.address.rpartition(":")[2]) as channel,
    ):
        call = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
        assert await fails(call)
        names.address = IPv4Address("127.0.0.1")
        calls: list[asyncio.Future[bytes]] = []
        while not any(
            made.done() and not made.exception() for made in calls[-100:]
        ):  # one in each iteration of the event loop
            calls.append(asyncio.ensure_future(call(b"")))
            await asyncio.sleep(0)
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(end) for end in ends} == {bytes, grpc.aio.AioRpcError}


async def test_closing_a_failing_channel_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with dns() as (server, _), channel_to(server, "1") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(f"/{SERVICE}/UnaryUnary")(b"")
    assert asyncio.all_tasks() == before


async def test_a_new_channel_does_not_inherit_the_failures_of_another_one() -> None:
    """By default the channels of a process share connections by address, and also the pauses after failures."""

    def channel() -> Any:
        telemetry = SpanCapture("client").telemetry
        return open_channel(address, service=SERVICE, repeatable=(), limit=5, telemetry=telemetry)

    async with echo(UnaryUnary=answer) as gone:
        address = gone.address
    async with channel() as failing:
        for _ in range(3):
            assert await fails(failing.unary_unary(f"/{SERVICE}/UnaryUnary"))
        async with echo(UnaryUnary=answer, listen=address), channel() as new:
            assert await new.unary_unary(f"/{SERVICE}/UnaryUnary")(b"hello") == b"hello"
