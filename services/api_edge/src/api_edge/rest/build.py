"""The REST API as one FastAPI application, and everything around a request, from the outside to its route.

surround        every protocol on the port
build_app       REST: the HTTP span, the middleware inside it, and the routers
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from api_edge.domain import DOMAIN
from api_edge.rest.openapi import document
from api_edge.rest.paths import ASSETS, OPENAPI, PROBES, is_untraced
from api_edge.rest.routes import docs, orders, probes, products
from api_edge.rules import MAX_REQUEST_BYTES
from meshkit.fastapi.budget import requested_seconds
from meshkit.fastapi.content_encoding import UnencodedBodies
from meshkit.fastapi.head import HeadAsGet
from meshkit.fastapi.host import AllowedHosts, HostHeader
from meshkit.fastapi.middleware import BodyLimits, TraceHeaders
from meshkit.fastapi.own_traces import OwnTraces
from meshkit.fastapi.plain_route import PlainRoutes
from meshkit.fastapi.prefix import PathPrefix
from meshkit.fastapi.problem_details import Problems
from meshkit.fastapi.proxies import TrustedProxies
from meshkit.fastapi.response_headers import ResponseHeaders
from meshkit.fastapi.tracing import HttpTracing, RouteScope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from starlette.types import ASGIApp, Receive, Scope, Send

    from api_edge.storefront import Storefront
    from meshkit.lifecycle import Stop
    from meshkit.telemetry import Telemetry

log = logging.getLogger("api_edge.access")

PROBLEMS = Problems(domain=DOMAIN, type_prefix="urn:aiomesh:problem:")

cors = partial(
    CORSMiddleware,
    allow_methods=("GET", "HEAD", "POST", "DELETE"),
    allow_headers=(
        *("Idempotency-Key", "X-Request-Timeout-Ms", "traceparent", "tracestate", "baggage"),
        *("Connect-Protocol-Version", "Connect-Timeout-Ms", "Grpc-Timeout", "X-Grpc-Web", "X-User-Agent"),
    ),
    expose_headers=(
        "Grpc-Message",
        "Grpc-Status",
        "Grpc-Status-Details-Bin",
        "Idempotency-Key",
        "Link",
        "Location",
        "Retry-After",
        "Server-Timing",
        "Trailer-Idempotency-Key",
        "Trailer-Traceresponse",
        "Trailer-X-Trace-Id",
        "traceresponse",
        "X-Trace-Id",
    ),
)
"""What a page of another origin may send and read."""

DESCRIPTION = """\
The storefront of aiomesh. Every response below `/v1` carries its trace: `X-Trace-Id`, `traceresponse`, a `Link` to the
trace page if it was sampled, and `Server-Timing` with the time of each backend. Every error is
`application/problem+json` (RFC 9457). `X-Request-Timeout-Ms` (1 to 30000) sets the time budget of a request."""


def build_app(storefront: Storefront, *, stop: Stop, telemetry: Telemetry, trace_url: str) -> FastAPI:
    """The FastAPI application around a storefront, with its HTTP spans and metrics."""
    routers = [products.router(storefront), orders.router(storefront), docs.router, probes.router(stop, telemetry.page)]
    app = FastAPI(
        title="aiomesh",
        version="1",
        description=DESCRIPTION,
        openapi_url=OPENAPI,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # An included router would look for the route of each request twice.
        routes=[*(route for router in routers for route in router.routes), Mount(ASSETS, docs.assets)],
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=[
            Middleware(HttpTracing, telemetry=telemetry, exclude=is_untraced),
            Middleware(TraceHeaders, problems=PROBLEMS, trace_url=trace_url, probes=PROBES, access_log=log),
            Middleware(HeadAsGet),
            Middleware(UnencodedBodies, problems=PROBLEMS),
            Middleware(BodyLimits, problems=PROBLEMS, max_bytes=MAX_REQUEST_BYTES),
            Middleware(RouteScope),
            Middleware(PlainRoutes),
        ],
    )
    app.openapi = partial(document, app)  # type: ignore[method-assign] # as FastAPI's documentation does
    app.router.default = _no_route
    PROBLEMS.add_handlers(app)
    return app


def surround(
    app: ASGIApp,
    *,
    cors_origins: Sequence[str] = (),
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = (),
    path_prefix: str = "",
    allowed_hosts: Sequence[str] = (),
    public: bool = False,
) -> ASGIApp:
    """The app inside what every request on the port passes, in this order. A preflight of CORS ends there."""
    allowed = partial(AllowedHosts, names=allowed_hosts, problems=PROBLEMS, access_log=log, probes=PROBES)
    layers: list[tuple[object, Callable[[ASGIApp], ASGIApp]]] = [
        (True, ResponseHeaders),
        (cors_origins, partial(cors, allow_origins=cors_origins)),
        (True, partial(HostHeader, problems=PROBLEMS, access_log=log)),
        (trusted_proxies, partial(TrustedProxies, networks=trusted_proxies)),
        (path_prefix, partial(PathPrefix, prefix=path_prefix)),
        (allowed_hosts, allowed),
        (public, OwnTraces),
    ]
    for is_on, layer in reversed(layers):
        app = layer(app) if is_on else app
    return app


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
    """Responds 404 to an unknown path, or 400 if the time budget is invalid."""
    requested_seconds(scope)
    raise HTTPException(404)
