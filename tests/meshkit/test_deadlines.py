"""The budget of a request: its server opens it and passes it on with every outgoing call."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest

from meshkit import deadline
from meshkit.deadline import FLOOR, RESERVE, budget, call_timeout, own_budget, remaining
from meshkit.errors import DeadlineExceeded
from meshkit.server.deadlines import MAX_SECONDS
from meshkit.status import service_errors
from tests.meshkit.echo import echo

ROUNDING = 1.01
"""The grpc-timeout header is rounded up to fewer digits, so a server may see a little more than was sent."""


async def tell_remaining(request: bytes, context: object) -> bytes:
    return str(remaining()).encode()


async def test_a_handler_sees_the_deadline_of_its_client() -> None:
    async with echo(UnaryUnary=tell_remaining) as service:
        assert 1.5 < float(await service.unary(timeout=2)) <= 2 * ROUNDING


async def test_a_call_without_a_deadline_gets_the_maximum_of_the_server() -> None:
    async with echo(UnaryUnary=tell_remaining) as service, grpc.aio.insecure_channel(service.address) as plain:
        unlimited = replace(service, channel=plain)
        left = float(await unlimited.unary())
    assert MAX_SECONDS - 1 < left <= MAX_SECONDS


async def test_an_outgoing_call_gets_the_remaining_budget_less_the_reserve() -> None:
    async with echo(UnaryUnary=tell_remaining) as service:
        with budget(1.0):
            assert float(await service.unary()) <= (1 - RESERVE) * ROUNDING


async def test_an_outgoing_call_never_takes_longer_than_its_limit() -> None:
    async with echo(UnaryUnary=tell_remaining, limit=0.5) as service:
        with budget(20):
            assert float(await service.unary(timeout=10)) <= 0.5 * ROUNDING


async def test_a_budget_is_handed_down_a_chain_of_servers() -> None:
    async with echo(UnaryUnary=tell_remaining) as leaf:

        async def forward(request: bytes, context: object) -> bytes:
            return await leaf.unary(request)

        async with echo(UnaryUnary=forward) as middle:
            left = float(await middle.unary(timeout=1))
    assert 0 < left <= (1 - RESERVE) * ROUNDING


async def test_a_spent_budget_fails_without_a_call() -> None:
    async with echo(UnaryUnary=tell_remaining) as service:
        with budget(RESERVE), pytest.raises(DeadlineExceeded), service_errors():
            await service.unary()
    assert service.server.spans() == []
    (span,) = service.client.spans()
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"


async def test_a_handler_is_cancelled_when_its_deadline_passes() -> None:
    cancelled = asyncio.Event()

    async def handler(request: bytes, context: object) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return request

    async with echo(UnaryUnary=handler) as service:
        with pytest.raises(DeadlineExceeded), service_errors():
            await service.unary(timeout=1)
        await cancelled.wait()


def test_an_inner_budget_cannot_outlive_the_outer_one() -> None:
    with budget(1), budget(10):
        assert 0 < (remaining() or 0) <= 1


def test_a_separate_budget_ignores_a_spent_one() -> None:
    with budget(0), own_budget(1):
        assert 0 < (remaining() or 0) <= 1


def test_without_a_budget_a_call_gets_its_limit() -> None:
    assert remaining() is None
    assert call_timeout(3) == 3


def test_the_floor_is_below_the_reserve() -> None:
    assert 0 < FLOOR < RESERVE
    assert deadline.remaining() is None
