"""The REST API as one FastAPI application: the middleware around a request, and the routers."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException

from api_edge.domain import DOMAIN
from api_edge.rest.openapi import document
from api_edge.rest.paths import ASSETS, OPENAPI, PROBES, is_untraced
from api_edge.rest.routes import docs, orders, probes, products
from meshkit.fastapi.budget import requested_seconds
from meshkit.fastapi.middleware import BodyLimits, TraceHeaders
from meshkit.fastapi.problem_details import Problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import APIRouter
    from fastapi.telemetry import TelemetryConfig
    from starlette.types import Receive, Scope, Send

    from api_edge.storefront import Storefront
    from meshkit.lifecycle import Stop
    from meshkit.telemetry import Telemetry

log = logging.getLogger("api_edge.access")

PROBLEMS = Problems(domain=DOMAIN, type_prefix="urn:aiomesh:problem:")

DESCRIPTION = """\
The storefront of aiomesh. Every response below `/v1` carries its trace: `X-Trace-Id`, `traceresponse`, a `Link` to the
trace page if it was sampled, and `Server-Timing` with the time of each backend. Every error is
`application/problem+json` (RFC 9457). `X-Request-Timeout-Ms` (1 to 30000) sets the time budget of a request."""


def build_app(storefront: Storefront, *, stop: Stop, telemetry: Telemetry, trace_url: str) -> FastAPI:
    """The FastAPI application around a storefront, with its HTTP spans and metrics."""
    app = FastAPI(
        title="aiomesh",
        version="1",
        description=DESCRIPTION,
        openapi_url=OPENAPI,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry=_telemetry(telemetry),
    )
    app.openapi = partial(document, app)  # type: ignore[method-assign] # as FastAPI's documentation does
    app.add_middleware(BodyLimits, problems=PROBLEMS)
    app.add_middleware(TraceHeaders, problems=PROBLEMS, trace_url=trace_url, probes=PROBES, access_log=log)
    _add_routes(
        app, [products.router(storefront), orders.router(storefront), docs.router, probes.router(stop, telemetry.page)]
    )
    return app


def _telemetry(telemetry: Telemetry) -> TelemetryConfig:
    return {
        "tracer_provider": telemetry.tracer_provider,
        "meter_provider": telemetry.meter_provider,
        "operation_spans": False,
        "logs": False,
        "exclude": is_untraced,
    }


def _add_routes(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    app.mount(ASSETS, docs.assets)
    for router in routers:
        app.include_router(router)
    app.router.default = _no_route
    PROBLEMS.add_handlers(app, [route for router in routers for route in router.routes])


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
    """Responds 404 to an unknown path, or 400 if the time budget is invalid."""
    requested_seconds(scope)
    raise HTTPException(404)
