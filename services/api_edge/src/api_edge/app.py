"""The composition root of the edge: the only module that creates and connects its parts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from api_edge import clients
from api_edge.purge import purge_forever
from api_edge.rest.build import PROBLEMS, build_app
from api_edge.storefront import Storefront
from meshkit.client.channel import open_channel
from meshkit.fastapi.server import listen_socket, serve
from meshkit.lifecycle import running
from meshkit.service import utc_now

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime

    from api_edge.settings import Settings
    from meshkit.lifecycle import Stop
    from meshkit.telemetry import Telemetry

CALL_SECONDS = 10.0
"""The maximum duration of a backend call, even if the request has a larger budget."""


@dataclass(frozen=True)
class EdgeApp:
    """The edge: a storefront, to be served over HTTP."""

    storefront: Storefront
    settings: Settings
    telemetry: Telemetry
    background: Sequence[Callable[[], Awaitable[None]]] = ()

    async def serve(self, stop: Stop, listener: socket.socket | None = None) -> None:
        """Serves until `stop` is requested, on `listener` or else on a new socket. Raises AddressInUse."""
        settings = self.settings
        listener = listener or listen_socket(settings.listen)
        async with running(*self.background):
            await serve(
                build_app(self.storefront, stop=stop, telemetry=self.telemetry, trace_url=settings.trace_url),
                problems=PROBLEMS,
                listener=listener,
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
        ) as inventory,
        open_channel(
            settings.pricing_target,
            service=clients.PRICING_API.name,
            repeatable=clients.PRICING_API.repeatable,
            limit=CALL_SECONDS,
            telemetry=telemetry,
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
