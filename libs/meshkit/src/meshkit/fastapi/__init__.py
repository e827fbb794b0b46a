"""What an HTTP edge on FastAPI needs in front of gRPC services: `pip install 'meshkit[fastapi]'`.

Problems            renders errors as application/problem+json (RFC 9457), by the table of `meshkit.errors`
route_with_budget   gives a request a time budget: that of its route, or of the client's header
TraceHeaders        adds X-Trace-Id, traceresponse and Server-Timing to every response, and logs one line
BodyLimits          limits the size of a request's body, and the time until it has arrived
HeadAsGet           responds to HEAD as to GET, without the body
UnencodedBodies     rejects a body with a Content-Encoding
ResponseHeaders     adds headers to every response: by default it is not sniffed and not stored
HostHeader          rejects a request without a valid Host; AllowedHosts also one for another host
TrustedProxies      replaces client, scheme, host and prefix by those in the X-Forwarded-* headers of a trusted proxy
PathPrefix          adds the prefix that a proxy in front removes
PlainRoutes         takes a shorter way through FastAPI to routes with simple parameters only
HttpTracing         makes the span and the metrics of every request; RouteScope shows it the route
OwnTraces           begins a trace of its own for every request, which links to that of the caller
serve               runs uvicorn under `meshkit.lifecycle`: drains, and cancels the requests of disconnected clients
"""

from __future__ import annotations

from meshkit.extras import require

require("fastapi")

# isort: split
from meshkit.fastapi.budget import requested_seconds, route_with_budget
from meshkit.fastapi.content_encoding import UnencodedBodies
from meshkit.fastapi.head import HeadAsGet
from meshkit.fastapi.host import AllowedHosts, HostHeader
from meshkit.fastapi.middleware import BodyLimits, TraceHeaders
from meshkit.fastapi.own_traces import OwnTraces
from meshkit.fastapi.plain_route import PlainRoutes
from meshkit.fastapi.prefix import PathPrefix
from meshkit.fastapi.problem_details import Problem, Problems
from meshkit.fastapi.proxies import TrustedProxies
from meshkit.fastapi.response_headers import ResponseHeaders
from meshkit.fastapi.server import ShuttingDown, listen_socket, serve
from meshkit.fastapi.tracing import HttpTracing, RouteScope

__all__ = [
    "AllowedHosts",
    "BodyLimits",
    "HeadAsGet",
    "HostHeader",
    "HttpTracing",
    "OwnTraces",
    "PathPrefix",
    "PlainRoutes",
    "Problem",
    "Problems",
    "ResponseHeaders",
    "RouteScope",
    "ShuttingDown",
    "TraceHeaders",
    "TrustedProxies",
    "UnencodedBodies",
    "listen_socket",
    "requested_seconds",
    "route_with_budget",
    "serve",
]
