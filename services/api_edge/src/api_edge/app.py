"""The composition root of the edge: the only module that creates and connects its parts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api_edge import clients
from api_edge.rest.build import PROBLEMS, build_app
from api_edge.storefront import Storefront
from meshkit.client.channel import open_channel
from meshkit.fastapi.server import listen_socket, serve

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

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

    async def serve(self, stop: Stop, listener: socket.socket | None = None) -> None:
        """Serves until `stop` is requested, on `listener` or else on a new socket. Raises AddressInUse."""
        settings = self.settings
        await serve(
            build_app(self.storefront, stop=stop, telemetry=self.telemetry, trace_url=settings.trace_url),
            problems=PROBLEMS,
            listener=listener or listen_socket(settings.listen),
            stop=stop,
            drain_seconds=settings.drain_seconds,
            grace_seconds=settings.grace_seconds,
        )


@asynccontextmanager
async def build(settings: Settings, telemetry: Telemetry) -> AsyncIterator[EdgeApp]:
    """The edge and its channels, which are closed at the end of the block. The caller shuts the telemetry down."""
    async with open_storefront(settings, telemetry) as storefront:
        yield EdgeApp(storefront, settings, telemetry)


@asynccontextmanager
async def open_storefront(settings: Settings, telemetry: Telemetry) -> AsyncIterator[Storefront]:
    """A storefront and its channels. At the end of the block its work in flight finishes, then the channels close."""
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
        storefront = Storefront(clients.InventoryClient(inventory), clients.PricingClient(pricing))
        try:
            yield storefront
        finally:
            await storefront.close()
