"""`python -m pricing` as an operator runs it."""

from __future__ import annotations

import asyncio
import signal
import uuid
from contextlib import AsyncExitStack

import pytest

from aiomesh.pricing.v1 import pricing_service_pb2 as pb
from aiomesh.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub
from tests.service_process import channel_to, running

pytestmark = pytest.mark.timeout(120)  # they start processes


async def test_two_processes_on_one_new_database_create_one_quote_for_one_id(database_url: str) -> None:
    lines = [pb.PriceLine(sku="TEA-0001", quantity=12), pb.PriceLine(sku="COF-0018", quantity=1)]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(running("pricing", database_url=database_url)) for _ in range(2)]
        stubs = [PricingServiceStub(await stack.enter_async_context(channel_to(process))) for process in processes]
        for _ in range(10):
            request = pb.CreateQuoteRequest(
                request_id=str(uuid.uuid4()), lines=lines, currency_code="JPY", fingerprint="digest"
            )
            answers = await asyncio.gather(*(stubs[turn % 2].CreateQuote(request) for turn in range(10)))
            assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1


async def test_a_quote_survives_sigkill_of_the_process(database_url: str) -> None:
    request = pb.CreateQuoteRequest(
        request_id=str(uuid.uuid4()),
        lines=[pb.PriceLine(sku="TEA-0001", quantity=12)],
        currency_code="KWD",
        fingerprint="digest",
    )
    answers = []
    for _ in range(2):
        async with running("pricing", database_url=database_url) as process, channel_to(process) as channel:
            answers.append(await PricingServiceStub(channel).CreateQuote(request))
            process.signal(signal.SIGKILL)
            await process.exit_status()
    assert answers[0] == answers[1]
