"""/livez, /readyz and /metrics, which machines poll. None of them calls a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from meshkit.fastapi.server import ShuttingDown

if TYPE_CHECKING:
    from meshkit.lifecycle import Stop
    from meshkit.telemetry.prometheus import MetricsPage


def router(stop: Stop, page: MetricsPage | None) -> APIRouter:
    """The routes of probes, with /metrics only if there is a page."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/livez")
    async def livez() -> PlainTextResponse:
        """Responds if the event loop runs."""
        return PlainTextResponse("ok\n")

    @routes.get("/readyz")
    async def readyz() -> PlainTextResponse:
        """Responds until the process drains; then raises ShuttingDown."""
        if stop.requested.is_set():
            raise ShuttingDown
        return PlainTextResponse("ok\n")

    if page:

        @routes.get("/metrics")
        async def metrics(request: Request) -> Response:
            """The metrics of this process, in Prometheus' text formats."""
            accept, accept_encoding = (
                ", ".join(request.headers.getlist(name)) for name in ("accept", "accept-encoding")
            )
            headers, body = page.render(accept, accept_encoding)
            return Response(body, headers=headers)

    return routes
