"""Readiness probes, which use the protocol that the callers of a process use.

A probe returns whether the process can serve now. If the process has not started, it returns False and never raises.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import closing

HOST = "127.0.0.1"
INTERVAL = 0.05  # seconds between two probes
RESPONSE_LIMIT = 1.0  # seconds that one response may take
CHECK = (
    "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nContent-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 5"
)
EMPTY, SERVING = bytes(5), b"\x00\x00\x00\x00\x02\x08\x01"
"""Messages of gRPC's health check: a request that names no service, and the response of a server that serves."""

Probe = Callable[[], Awaitable[bool]]


async def wait_ready(probe: Probe) -> None:
    """Waits until `probe` returns True; the caller sets a time limit."""
    while not await probe():  # noqa: ASYNC110 - another process sets no event of ours
        await asyncio.sleep(INTERVAL)


def all_of(*probes: Probe) -> Probe:
    """Ready when each of `probes` is."""

    async def ready() -> bool:
        for probe in probes:
            if not await probe():
                return False
        return True

    return ready


def accepts(port: int) -> Probe:
    """Ready when `port` accepts TCP connections."""

    async def ready() -> bool:
        try:
            async with asyncio.timeout(RESPONSE_LIMIT):
                _, writer = await asyncio.open_connection(HOST, port)
        except OSError:  # TimeoutError is one
            return False
        writer.close()
        return True

    return ready


def responds(port: int, path: str, *, tls: bool = False, host: str = HOST) -> Probe:
    """Ready when the response to `GET path` has the status 200. The certificate of an own process is not checked."""
    context = any_certificate() if tls else None

    async def ready() -> bool:
        try:
            async with asyncio.timeout(RESPONSE_LIMIT):
                return await status_of(port, path, context, host) == b"200"
        except (OSError, ValueError):
            return False

    return ready


def any_certificate() -> ssl.SSLContext:
    """The context of a client that checks no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def status_of(port: int, path: str, context: ssl.SSLContext | None, host: str = HOST) -> bytes:
    """The status of the response to `GET path` of a host on this machine.

    Raises:
        OSError: there is no connection.
        ValueError: what came is no response.
    """
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
    with closing(writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        _, status, *_ = (await reader.readline()).split(maxsplit=2)
        return status


def serves_through(port: int, host: str = HOST) -> Probe:
    """Ready when a gateway's health check of gRPC comes from an edge that serves.

    The check is sent over HTTP/1.1, from which gateways translate it: a channel would have to trust the certificate.
    """
    request = f"{CHECK}\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode() + EMPTY
    context = any_certificate()

    async def ready() -> bool:
        try:
            async with asyncio.timeout(RESPONSE_LIMIT):
                return SERVING in await _response(port, request, context)
        except OSError:
            return False

    return ready


async def _response(port: int, request: bytes, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
    with closing(writer):
        writer.write(request)
        return await reader.read()


def serves(port: int, service: str) -> Probe:
    """Ready when the gRPC health service on `port` reports `service` as SERVING."""
    listens = accepts(port)

    async def ready() -> bool:
        return await listens() and await _is_serving(port, service)

    return ready


async def _is_serving(port: int, service: str) -> bool:
    # Imported here, so that the children start before localmesh spends time on these imports.
    import grpc  # noqa: PLC0415
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # noqa: PLC0415

    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            response = await check(HealthCheckRequest(service=service), timeout=RESPONSE_LIMIT)
        except grpc.aio.AioRpcError:
            return False
    return response.status == HealthCheckResponse.SERVING
