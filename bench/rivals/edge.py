"""What the rivals' edges share: the route's parameters, and the mesh's own server, uvicorn on uvloop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import uvicorn
from fastapi import Query

if TYPE_CHECKING:
    from fastapi import FastAPI

PRODUCT = "/v1/products/{sku}"
SECONDS = 2.0
"""The deadline of a lookup."""

Currency = Annotated[str, Query(min_length=3, max_length=3)]
Quantity = Annotated[int, Query(ge=1, le=1_000_000)]


def serve(app: FastAPI, port: int) -> None:
    """Serves an app on a port of loopback, in one process and without an access log, until SIGTERM."""
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


def arguments() -> tuple[str, int, list[str]]:
    """What to run (edge, stock or price), its port, and the rest: the edge's backends, or a database file."""
    role, port, *rest = sys.argv[1:]
    return role, int(port), rest
