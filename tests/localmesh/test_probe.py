"""Readiness, asked of real servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from localmesh.probe import accepts, all_of, answers, serves, wait_ready

SERVICE = "aiomesh.pricing.v1.PricingService"


@asynccontextmanager
async def health_server() -> AsyncIterator[tuple[int, health.aio.HealthServicer]]:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, servicer
    finally:
        await server.stop(None)


@asynccontextmanager
async def http_server(answer: bytes) -> AsyncIterator[int]:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # whoever has waited long enough closes the connection
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer if request.startswith(b"GET /readyz HTTP/1.1\r\n") else b"")
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_grpc_service_is_ready_only_while_its_health_is_serving() -> None:
    async with health_server() as (port, servicer):
        ready = serves(port, SERVICE)
        assert not await ready()
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        assert not await ready()
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        assert await ready()
        assert not await serves(port, "another.Service")()


async def test_waiting_ends_when_the_service_begins_to_serve() -> None:
    async with health_server() as (port, servicer):
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        waiting = asyncio.create_task(wait_ready(serves(port, SERVICE)))
        assert not await serves(port, SERVICE)()
        assert not waiting.done()
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await waiting


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"SSH-2.0\r\n", False),
        (b"", False),
    ],
)
async def test_an_http_server_is_ready_when_it_answers_200(answer: bytes, expected: bool) -> None:  # noqa: FBT001
    async with http_server(answer) as port:
        assert await answers(port, "/readyz")() is expected


async def test_nothing_is_ready_on_a_port_that_nobody_listens_on() -> None:
    async with http_server(b"") as port:
        assert await accepts(port)()
    probes = [accepts(port), answers(port, "/readyz"), serves(port, SERVICE)]
    assert [await probe() for probe in probes] == [False, False, False]


async def test_all_of_several_is_ready_when_each_is() -> None:
    async with http_server(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert await all_of(accepts(port), answers(port, "/readyz"))()
        assert not await all_of(accepts(port), answers(port, "/other"))()
