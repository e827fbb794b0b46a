"""What an HTTP edge on FastAPI needs in front of gRPC services: `pip install 'meshkit[fastapi]'`.

Problems            renders errors as application/problem+json (RFC 9457), by the table of `meshkit.errors`
route_with_budget   gives a request a time budget: that of its route, or of the client's header
TraceHeaders        adds X-Trace-Id, traceresponse and Server-Timing to every response, and logs one line
BodyLimits          limits the size of a request's body, and the time until it has arrived
serve               runs uvicorn under `meshkit.lifecycle`: drains, and cancels the requests of disconnected clients
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
