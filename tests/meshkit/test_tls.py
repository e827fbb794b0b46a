"""Services over TLS: the client checks the server's certificate and, in mutual TLS, the server the client's."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import Any

import grpc
import pytest
import trustme

from meshkit.client.channel import open_channel
from meshkit.lifecycle import AddressInUse, Stop, bind, serve
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.testing import SpanCapture
from tests.meshkit.echo import SERVICE, Echo, always_healthy, echo
from tests.meshkit.names import dns

NAME = "echo.test"
"""The name in the server's certificate, besides 127.0.0.1."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def root(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def identity(authority: trustme.CA, *names: str) -> tuple[bytes, bytes]:
    """A private key, and the chain of its certificate."""
    certificate = authority.issue_cert(*names)
    return certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


def server_tls(authority: trustme.CA) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([identity(authority, "127.0.0.1", NAME)])


def mutual_tls(authority: trustme.CA) -> grpc.ServerCredentials:
    own = identity(authority, "127.0.0.1", NAME)
    return grpc.ssl_server_credentials([own], root_certificates=root(authority), require_client_auth=True)


async def answer(request: bytes, context: object) -> bytes:
    return request


async def name_caller(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return b",".join(context.auth_context()["x509_subject_alternative_name"])


async def test_a_call_over_tls_succeeds_and_is_traced(authority: trustme.CA) -> None:
    trusts = grpc.ssl_channel_credentials(root(authority))
    async with echo(UnaryUnary=answer, credentials=(server_tls(authority), trusts)) as service:
        assert await service.unary(b"in secret") == b"in secret"
    assert [len(capture.spans()) for capture in (service.client, service.server)] == [1, 1]


async def test_a_client_rejects_a_server_of_another_authority(authority: trustme.CA) -> None:
    trusts = grpc.ssl_channel_credentials(root(trustme.CA()))
    async with echo(UnaryUnary=answer, credentials=(server_tls(authority), trusts)) as service:
        await assert_unavailable(service)


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_side_with_tls_rejects_one_without(authority: trustme.CA, side: str) -> None:
    server = server_tls(authority) if side == "server" else None
    client = grpc.ssl_channel_credentials(root(authority)) if side == "client" else None
    async with echo(UnaryUnary=answer, credentials=(server, client)) as service:
        await assert_unavailable(service)


async def test_with_mutual_tls_the_handler_gets_the_name_of_the_client(authority: trustme.CA) -> None:
    client = grpc.ssl_channel_credentials(root(authority), *identity(authority, "shop.test"))
    async with echo(UnaryUnary=name_caller, credentials=(mutual_tls(authority), client)) as service:
        assert await service.unary() == b"shop.test"


async def test_mutual_tls_rejects_a_client_without_a_certificate(authority: trustme.CA) -> None:
    stranger = grpc.ssl_channel_credentials(root(authority))
    async with echo(UnaryUnary=answer, credentials=(mutual_tls(authority), stranger)) as service:
        await assert_unavailable(service)


async def test_a_renewed_channel_keeps_its_credentials(authority: trustme.CA) -> None:
    """Without renewal gRPC would resolve the name again only after 18 s, see `test_channel_renewal`."""
    trusts = grpc.ssl_channel_credentials(root(authority))
    async with (
        dns() as (names_at, names),
        echo(UnaryUnary=answer, credentials=(server_tls(authority), trusts)) as served,
        open_channel(
            f"dns://{names_at}/{NAME}:{served.address.rpartition(':')[2]}",
            service=SERVICE,
            repeatable=(),
            limit=15,
            telemetry=served.client.telemetry,
            credentials=trusts,
        ) as channel,
    ):
        call: Any = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
        while names.queries < 16:
            assert await call(b"").code() is grpc.StatusCode.UNAVAILABLE
            await asyncio.sleep(0.01)
        names.address = IPv4Address("127.0.0.1")
        while await call(b"").code() is grpc.StatusCode.UNAVAILABLE:
            await asyncio.sleep(0.01)
        assert await call(b"again") == b"again"


async def test_a_process_serves_tls_with_its_credentials(
    authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "meshkit.lifecycle")
    stop, telemetry = Stop(), SpanCapture("server").telemetry
    health = Health(SERVICE, always_healthy)
    server = build_server(services={}, health=health, telemetry=telemetry)
    server_task = asyncio.create_task(
        serve(
            server,
            listen="127.0.0.1:0",
            health=health,
            stop=stop,
            credentials=server_tls(authority),
            drain_seconds=0,
            grace_seconds=0,
        )
    )
    while not (lines := [record for record in caplog.records if record.getMessage().startswith("listening on")]):
        await asyncio.sleep(0)
    address = lines[0].getMessage().removeprefix("listening on ")
    async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(root(authority))) as channel:
        await channel.channel_ready()
    stop.request()
    await server_task


async def test_a_key_of_another_certificate_ends_the_start_with_one_message(authority: trustme.CA) -> None:
    key, _ = identity(authority, "127.0.0.1")
    _, chain = identity(authority, "127.0.0.1")
    server = grpc.aio.server()
    with pytest.raises(AddressInUse, match="do the key and the certificate belong together"):
        bind(server, "127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))


async def assert_unavailable(service: Echo) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await service.unary()
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not service.server.spans()
