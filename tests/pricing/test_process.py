"""`python -m pricing` as an operator runs it."""

from __future__ import annotations

import asyncio
import signal
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import pytest

from aiomesh.pricing.v1 import pricing_service_pb2 as pb
from aiomesh.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub
from meshkit.testing import FakeClock, SpanCapture
from tests.edge.mesh import start_pricing
from tests.service_process import channel_to, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiomesh.pricing.v1.pricing_service_pb2_grpc import PricingServiceAsyncStub

pytestmark = pytest.mark.timeout(120)  # they start processes


@asynccontextmanager
async def stub_here(database_url: str) -> AsyncIterator[PricingServiceAsyncStub]:
    """A stub of the service in the process of the tests."""
    async with (
        start_pricing(database_url, SpanCapture("pricing"), FakeClock(datetime.now(UTC))) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield PricingServiceStub(channel)


def quote_request() -> pb.CreateQuoteRequest:
    lines = [pb.PriceLine(sku="TEA-0001", quantity=12), pb.PriceLine(sku="COF-0018", quantity=1)]
    return pb.CreateQuoteRequest(request_id=str(uuid.uuid4()), lines=lines, currency_code="JPY", fingerprint="digest")


async def test_two_processes_create_one_quote_for_one_id_and_it_survives_sigkill_of_one(database_url: str) -> None:
    requests = [quote_request() for _ in range(10)]
    async with (
        running("pricing", database_url=database_url) as process,
        channel_to(process) as channel,
        stub_here(database_url) as here,
    ):
        stubs = [PricingServiceStub(channel), here]
        quotes = []
        for request in requests:
            answers = await asyncio.gather(*(stubs[turn % 2].CreateQuote(request) for turn in range(10)))
            assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
            quotes.append(answers[0])
        alone = quote_request()
        quotes.append(await stubs[0].CreateQuote(alone))
        process.signal(signal.SIGKILL)
        await process.exit_status()
        assert [await here.CreateQuote(request) for request in (*requests, alone)] == quotes
