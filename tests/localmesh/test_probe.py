"""Readiness probes of real servers."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from localmesh.probe import accepts, all_of, responds, serves, serves_through, wait_ready

SERVICE = "aiomesh.pricing.v1.PricingService"


def grpc_message(status: int) -> bytes:
    """A response of the health check, with the length before it."""
    message = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return b"\0" + len(message).to_bytes(4) + message


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
async def http_server(
    response: bytes, context: ssl.SSLContext | None = None, request_line: bytes = b"GET /readyz HTTP/1.1\r\n"
) -> AsyncIterator[int]:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # a client that only connects sends no request
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(response if request.startswith(request_line) else b"")
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_grpc_service_is_ready_only_while_its_health_status_is_serving() -> None:
    async with health_server() as (port, servicer):
        ready = serves(port, SERVICE)
        assert not await ready()
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        assert not await ready()
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        assert await ready()
        assert not await serves(port, "another.Service")()


async def test_wait_ready_returns_when_the_service_starts_to_serve() -> None:
    async with health_server() as (port, servicer):
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        waiting = asyncio.create_task(wait_ready(serves(port, SERVICE)))
        assert not await serves(port, SERVICE)()
        assert not waiting.done()
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await waiting


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"SSH-2.0\r\n", False),
        (b"", False),
    ],
)
async def test_an_http_server_is_ready_when_it_responds_with_200(response: bytes, expected: bool) -> None:  # noqa: FBT001
    async with http_server(response) as port:
        assert await responds(port, "/readyz")() is expected


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("shop.example").configure_cert(context)
    return context


async def test_an_http_server_with_tls_is_ready_with_any_certificate(tls: ssl.SSLContext) -> None:
    async with http_server(b"HTTP/1.1 200 OK\r\n\r\n", tls) as port:
        assert await responds(port, "/readyz", tls=True)()
        assert not await responds(port, "/readyz")()


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n" + grpc_message(health_pb2.HealthCheckResponse.SERVING), True),
        (b"HTTP/1.1 200 OK\r\n\r\n" + grpc_message(health_pb2.HealthCheckResponse.NOT_SERVING), False),
        (b"HTTP/1.1 200 OK\r\nGrpc-Status: 14\r\n\r\n", False),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_a_gateway_serves_grpc_when_the_health_check_of_an_edge_says_so(
    response: bytes,
    expected: bool,  # noqa: FBT001
    tls: ssl.SSLContext,
) -> None:
    async with http_server(response, tls, b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\n") as port:
        assert await serves_through(port)() is expected


async def test_no_probe_is_ready_on_a_port_without_a_listener() -> None:
    async with http_server(b"") as port:
        assert await accepts(port)()
    probes = [accepts(port), responds(port, "/readyz"), serves(port, SERVICE), serves_through(port)]
    assert [await probe() for probe in probes] == [False, False, False, False]


async def test_several_probes_are_ready_when_each_is() -> None:
    async with http_server(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert await all_of(accepts(port), responds(port, "/readyz"))()
        assert not await all_of(accepts(port), responds(port, "/other"))()
