"""The composition root of the edge: the only place that knows how the parts are made and put together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI

from api_edge import clients
from api_edge.rest import problem_details
from api_edge.rest.middleware import PROBES, Limits, TraceHeaders
from api_edge.rest.openapi import openapi
from api_edge.rest.routes import docs, orders, probes, products
from api_edge.rest.server import listen_socket, serve
from api_edge.storefront import Storefront
from meshkit.client.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

    from api_edge.settings import Settings
    from meshkit.lifecycle import Stop
    from meshkit.telemetry import Telemetry

ROUTERS = (products.router, orders.router, docs.router, probes.router)

CALL_SECONDS = 10.0
"""The limit of any one backend call, for requests that ask for a budget above it."""

DESCRIPTION = """\
The storefront of aiomesh. Every answer carries its trace: `X-Trace-Id`, `traceresponse`, a `Link` to the trace page if
it is sampled, and `Server-Timing` with the time of each backend. Every error is `application/problem+json` (RFC 9457).
`X-Request-Timeout-Ms` (1 to 30000) sets the time budget of a request."""


def build_app(storefront: Storefront, *, stop: Stop, telemetry: Telemetry, trace_url: str) -> FastAPI:
    """The FastAPI application around a storefront, with its HTTP spans and metrics."""
    app = FastAPI(
        title="aiomesh",
        version="1",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry={
            "tracer_provider": telemetry.tracer_provider,
            "meter_provider": telemetry.meter_provider,
            "operation_spans": False,
            "logs": False,
            "exclude": _is_probe,
        },
    )
    app.openapi = partial(openapi, app)  # type: ignore[method-assign] # as FastAPI's documentation does
    app.state.storefront, app.state.stop, app.state.metrics = storefront, stop, telemetry.page
    app.add_middleware(Limits)
    app.add_middleware(TraceHeaders, trace_url=trace_url)
    app.mount(docs.ASSETS, docs.assets)
    for router in ROUTERS:
        app.include_router(router)
    problem_details.add_handlers(app, [*app.routes, *(route for router in ROUTERS for route in router.routes)])
    return app


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
    """A storefront over channels to both backends. At the end it finishes what it has begun, and closes them."""
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


def _is_probe(scope: MutableMapping[str, object]) -> bool:
    return scope["path"] in PROBES
