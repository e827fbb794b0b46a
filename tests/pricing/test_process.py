"""`python -m pricing` as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from aiomesh.pricing.v1 import pricing_service_pb2 as pb
from aiomesh.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator


@asynccontextmanager
async def running(**settings: str) -> AsyncIterator[Process]:
    """A pricing process, ended with the block; `settings` come without their prefix."""
    environ = {**os.environ, "PRICING_LISTEN": "127.0.0.1:0"}
    environ |= {f"PRICING_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pricing", env=environ, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def logged(process: Process, message: str) -> dict[str, object]:
    """The next log line whose message holds some text."""
    assert process.stderr
    async for line in process.stderr:
        record: dict[str, object] = json.loads(line)
        if message in str(record["message"]):
            return record
    raise AssertionError(f"the process ended without {message!r}")


async def channel_to(process: Process, stack: AsyncExitStack) -> grpc.aio.Channel:
    """A channel to a process, once it is SERVING."""
    port = (await logged(process, "listening"))["port"]
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
    await logged(process, "is SERVING")
    return channel


async def test_two_processes_on_one_new_database_make_one_quote_of_one_id(database_url: str) -> None:
    lines = [pb.PriceLine(sku="TEA-0001", quantity=12), pb.PriceLine(sku="COF-0018", quantity=1)]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(running(database_url=database_url)) for _ in range(2)]
        stubs = [PricingServiceStub(await channel_to(process, stack)) for process in processes]
        for _ in range(10):
            request = pb.CreateQuoteRequest(
                request_id=str(uuid.uuid4()), lines=lines, currency_code="JPY", fingerprint="digest"
            )
            answers = await asyncio.gather(*(stubs[turn % 2].CreateQuote(request) for turn in range(10)))
            assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1


async def test_a_quote_survives_the_death_of_the_process_that_made_it(database_url: str) -> None:
    request = pb.CreateQuoteRequest(
        request_id=str(uuid.uuid4()),
        lines=[pb.PriceLine(sku="TEA-0001", quantity=12)],
        currency_code="KWD",
        fingerprint="digest",
    )
    answers = []
    for _ in range(2):
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(running(database_url=database_url))
            stub = PricingServiceStub(await channel_to(process, stack))
            answers.append(await stub.CreateQuote(request))
            process.kill()
            await process.wait()
    assert answers[0] == answers[1]


async def test_sigterm_ends_it_with_status_0(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(running(database_url=database_url))
        await channel_to(process, stack)
        process.send_signal(signal.SIGTERM)
        await logged(process, "stopped")
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("grace_seconds", "soon"), ("drain_seconds", "-1"), ("database_url", "mysql://x"), ("log_level", "x")],
)
async def test_a_wrong_setting_is_told_in_one_line(name: str, value: str) -> None:
    async with running(**{name: value}) as process:
        _, errors = await process.communicate()
    assert process.returncode == 2
    (line,) = errors.decode().splitlines()
    assert line.startswith(f"PRICING_{name.upper()}: ")
