"""/livez, /readyz and /metrics: for machines. None of them calls a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from api_edge.domain import ShuttingDown

if TYPE_CHECKING:
    from meshkit.lifecycle import Stop
    from meshkit.telemetry.metrics import MetricsPage

router = APIRouter(include_in_schema=False)


@router.get("/livez")
async def livez() -> PlainTextResponse:
    """The event loop answers."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
async def readyz(request: Request) -> PlainTextResponse:
    """This process can serve: it has started and is not draining. Raises ShuttingDown."""
    if cast("Stop", request.app.state.stop).requested.is_set():
        raise ShuttingDown
    return PlainTextResponse("ok\n")


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What this process measures, in Prometheus' text format."""
    page = cast("MetricsPage", request.app.state.metrics)
    return Response(page.text(), media_type=page.media_type)
