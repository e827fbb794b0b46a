"""The composition root of the edge: the only module that creates and connects its parts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from api_edge import clients
from api_edge.concurrency import concurrently
from api_edge.purge import purge_forever
from api_edge.rest.build import PROBLEMS, build_app, surround
from api_edge.rpc.paths import with_rpc_paths
from api_edge.rpc.server import build_rpc_server
from api_edge.storefront import Storefront
from meshkit import addresses
from meshkit.client.channel import open_channel
from meshkit.fastapi.server import listen_socket, serve
from meshkit.lifecycle import bind, running, serve_bound
from meshkit.service import utc_now

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
    from datetime import datetime

    from api_edge.settings import Settings
    from meshkit.connect.paths import ASGIApp
    from meshkit.lifecycle import Stop
    from meshkit.telemetry import Telemetry

CALL_SECONDS = 10.0
"""The maximum duration of a backend call, even if the request has a larger budget."""


@dataclass(frozen=True)
class EdgeApp:
    """The edge: a storefront, to be served over HTTP, over gRPC, or over both."""

    storefront: Storefront
    settings: Settings
    telemetry: Telemetry
    background: Sequence[Callable[[], Awaitable[None]]] = ()

    async def serve(self, stop: Stop, listener: socket.socket | None = None) -> None:
        """Serves every protocol until `stop` is requested, then drains them together.

        Args:
            stop: ends the serving.
            listener: serves HTTP; by default a new socket, or none if the setting `listen` is empty.

        Raises:
            AddressInUse: an address cannot be bound.
        """
        settings = self.settings
        servers: list[Callable[[], Coroutine[None, None, None]]] = [self._grpc(stop)] if settings.grpc_listen else []
        if listener := listener or (listen_socket(settings.listen) if settings.listen else None):
            servers.insert(0, partial(self._serve_http, stop, listener))
        async with running(*self.background):
            await concurrently(*(serve() for serve in servers))

    def http_app(self, stop: Stop) -> ASGIApp:
        """REST, Connect and gRPC-Web, for any ASGI server. On one that sends trailers it also speaks gRPC.

        Args:
            stop: makes it not ready.
        """
        settings = self.settings
        rest = build_app(self.storefront, stop=stop, telemetry=self.telemetry, trace_url=settings.trace_url)
        return surround(
            with_rpc_paths(rest, self.storefront, self.telemetry, max_pending=settings.max_pending),
            cors_origins=settings.cors_origins,
            trusted_proxies=settings.trusted_proxies,
            path_prefix=settings.path_prefix,
            allowed_hosts=settings.allowed_hosts,
            public=settings.public,
        )

    async def _serve_http(self, stop: Stop, listener: socket.socket) -> None:
        settings = self.settings
        await serve(
            self.http_app(stop),
            problems=PROBLEMS,
            listener=listener,
            stop=stop,
            drain_seconds=settings.drain_seconds,
            grace_seconds=settings.grace_seconds,
            server=settings.server,
            tls=settings.tls,
        )

    def _grpc(self, stop: Stop) -> Callable[[], Coroutine[None, None, None]]:
        """Serves gRPC, on an address that is bound now. Raises AddressInUse."""
        settings = self.settings
        server, health = build_rpc_server(
            self.storefront, self.telemetry, max_pending=settings.max_pending, public=settings.public
        )
        return partial(
            serve_bound,
            server,
            addresses.resolve(settings.grpc_listen)._replace(port=bind(server, settings.grpc_listen)),
            health=health,
            stop=stop,
            drain_seconds=settings.drain_seconds,
            grace_seconds=settings.grace_seconds,
        )


@asynccontextmanager
async def build(
    settings: Settings, telemetry: Telemetry, *, clock: Callable[[], datetime] = utc_now
) -> AsyncIterator[EdgeApp]:
    """The edge over its channels, which are closed at the end of the block. The caller shuts the telemetry down.

    Args:
        settings: those of the process.
        telemetry: that of the process.
        clock: returns the current time, an aware datetime.
    """
    async with open_clients(settings, telemetry) as (inventory, pricing), open_storefront(inventory, pricing) as shop:
        purger = partial(
            purge_forever,
            inventory,
            pricing,
            retention=timedelta(seconds=settings.order_retention_seconds),
            interval=settings.purge_seconds,
            clock=clock,
        )
        yield EdgeApp(shop, settings, telemetry, background=[purger])


@asynccontextmanager
async def open_clients(
    settings: Settings, telemetry: Telemetry
) -> AsyncIterator[tuple[clients.InventoryClient, clients.PricingClient]]:
    """Clients of both backends, whose channels are closed at the end of the block."""
    async with (
        open_channel(
            settings.inventory_target,
            service=clients.INVENTORY_API.name,
            repeatable=clients.INVENTORY_API.repeatable,
            limit=CALL_SECONDS,
            telemetry=telemetry,
            max_waiting=settings.max_waiting,
        ) as inventory,
        open_channel(
            settings.pricing_target,
            service=clients.PRICING_API.name,
            repeatable=clients.PRICING_API.repeatable,
            limit=CALL_SECONDS,
            telemetry=telemetry,
            max_waiting=settings.max_waiting,
        ) as pricing,
    ):
        yield clients.InventoryClient(inventory), clients.PricingClient(pricing)


@asynccontextmanager
async def open_storefront(
    inventory: clients.InventoryClient, pricing: clients.PricingClient
) -> AsyncIterator[Storefront]:
    """A storefront that, at the end of the block, finishes the orders in flight."""
    storefront = Storefront(inventory, pricing)
    try:
        yield storefront
    finally:
        await storefront.close()
