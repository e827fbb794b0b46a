"""A gRPC service of all four arities over plain bytes; each test supplies the handlers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from string import digits
from typing import TYPE_CHECKING, Any

import grpc

from meshkit.client.channel import open_channel
from meshkit.config import MAX_PENDING
from meshkit.server.build import build_server
from meshkit.server.health import SERVING, Health
from meshkit.telemetry.spans import TracerProvider
from meshkit.testing import SpanCapture, start_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from opentelemetry.sdk import trace as sdk

    from meshkit.telemetry import Instrumentation
    from meshkit.telemetry.prometheus import MetricsPage
    from meshkit.telemetry.provider import Telemetry

SERVICE = "test.Echo"
MAKERS: dict[str, Callable[..., Any]] = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler,
    "UnaryStream": grpc.unary_stream_rpc_method_handler,
    "StreamUnary": grpc.stream_unary_rpc_method_handler,
    "StreamStream": grpc.stream_stream_rpc_method_handler,
}


async def always_healthy() -> None:
    """The health check of a service without dependencies."""


def build_echo(
    add: Callable[[grpc.aio.Server], None], telemetry: Telemetry, **options: Any
) -> tuple[grpc.aio.Server, Health]:
    """A server with the echo service."""
    health = Health(SERVICE, always_healthy)
    return build_server(services={SERVICE: add}, health=health, telemetry=telemetry, **options), health


@dataclass(frozen=True)
class Echo:
    """A running echo service, a channel to it, and the spans of both sides."""

    channel: Any  # a grpc.aio.Channel, whose published types do not fit plain bytes
    address: str
    client: SpanCapture
    server: SpanCapture
    health: Health
    running: grpc.aio.Server

    async def unary(self, request: bytes = b"hello", **kwargs: Any) -> bytes:
        call: Awaitable[bytes] = self.channel.unary_unary(f"/{SERVICE}/UnaryUnary")(request, **kwargs)
        return await call


@asynccontextmanager
async def echo(
    *,
    instrumentation: Instrumentation = "native",
    provider: type[sdk.TracerProvider] = TracerProvider,
    repeatable: tuple[str, ...] = (),
    limit: float = 5.0,
    max_pending: int = MAX_PENDING,
    listen: str = "127.0.0.1:0",
    pages: tuple[MetricsPage, MetricsPage] | None = None,
    credentials: tuple[grpc.ServerCredentials | None, grpc.ChannelCredentials | None] = (None, None),
    server_interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    client_interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    server_options: Sequence[tuple[str, int | str]] = (),
    client_options: Sequence[tuple[str, int | str]] = (),
    build: Callable[..., tuple[grpc.aio.Server, Health]] = build_echo,
    **handlers: Any,
) -> AsyncIterator[Echo]:
    """Serves the handlers, named by their arity such as `UnaryUnary`, with or without a number.

    `pages` show the metrics of client and server; `credentials` are those of server and client. `build` makes the
    server, as `build_echo` does.
    """

    def add(server: grpc.aio.Server) -> None:
        methods = {name: MAKERS[name.rstrip(digits)](handler) for name, handler in handlers.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))

    client, server = (
        SpanCapture(name, instrumentation, page, provider)
        for name, page in zip(("client", "server"), pages or (None, None), strict=True)
    )
    built, health = build(
        add, server.telemetry, max_pending=max_pending, interceptors=server_interceptors, options=server_options
    )
    await health._publish(SERVING)
    await health._servicer.set(SERVICE, SERVING)  # which channels ask for, also of a server of another service
    async with (
        start_server(built, listen, credentials=credentials[0]) as address,
        open_channel(
            address,
            service=SERVICE,
            repeatable=repeatable,
            limit=limit,
            telemetry=client.telemetry,
            credentials=credentials[1],
            interceptors=client_interceptors,
            options=client_options,
        ) as channel,
    ):
        yield Echo(channel, address, client, server, health, built)
