"""What an HTTP edge on FastAPI needs in front of gRPC services: `pip install 'meshkit[fastapi]'`.

Problems            errors as application/problem+json (RFC 9457), by the table of `meshkit.errors`
route_with_budget   the time that a route, or its caller's header, gives a request
TraceHeaders        X-Trace-Id, traceresponse and Server-Timing on every response, and one log line
BodyLimits          the size of a request's body, and the time in which it has to come
serve               uvicorn under `meshkit.lifecycle`: drains, and cancels the requests of clients that disconnect
"""

from __future__ import annotations

from meshkit.extras import require

require("fastapi")

# isort: split
from meshkit.fastapi.budget import requested_seconds, route_with_budget
from meshkit.fastapi.middleware import BodyLimits, TraceHeaders
from meshkit.fastapi.problem_details import Problem, Problems
from meshkit.fastapi.server import ShuttingDown, listen_socket, serve

__all__ = [
    "BodyLimits",
    "Problem",
    "Problems",
    "ShuttingDown",
    "TraceHeaders",
    "listen_socket",
    "requested_seconds",
    "route_with_budget",
    "serve",
]
