"""The composition root of the edge: the only place that knows how the parts are made and put together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from api_edge import clients
from api_edge.rest.build import build_app
from api_edge.rest.server import listen_socket, serve
from api_edge.storefront import Storefront
from meshkit.client.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from api_edge.settings import Settings
    from meshkit.lifecycle import Stop
    from meshkit.telemetry import Telemetry

CALL_SECONDS = 10.0
"""The limit of any one backend call, for requests that ask for a budget above it."""


async def run(settings: Settings, telemetry: Telemetry, stop: Stop) -> None:
    """Serves until stopped; then closes what it opened, channels last."""
    listener = listen_socket(settings.listen)
    async with open_storefront(settings, telemetry) as storefront:
        app = build_app(storefront, stop=stop, telemetry=telemetry, trace_url=settings.trace_url)
        await serve(
            app,
            listener=listener,
            stop=stop,
            drain_seconds=settings.drain_seconds,
            grace_seconds=settings.grace_seconds,
        )


@asynccontextmanager
async def open_storefront(settings: Settings, telemetry: Telemetry) -> AsyncIterator[Storefront]:
    """A storefront over channels to both backends; at the end it finishes what is in flight, then closes them."""
    async with (
        open_channel(
            settings.inventory_target,
            service=clients.INVENTORY_SERVICE,
            repeatable=clients.INVENTORY_REPEATABLE,
            limit=CALL_SECONDS,
            telemetry=telemetry,
        ) as inventory,
        open_channel(
            settings.pricing_target,
            service=clients.PRICING_SERVICE,
            repeatable=clients.PRICING_REPEATABLE,
            limit=CALL_SECONDS,
            telemetry=telemetry,
        ) as pricing,
    ):
        storefront = Storefront(clients.InventoryClient(inventory), clients.PricingClient(pricing))
        try:
            yield storefront
        finally:
            await storefront.close()
