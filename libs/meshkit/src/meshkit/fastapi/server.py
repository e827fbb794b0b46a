"""Serves an app whose errors are problems, under meshkit's lifecycle."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from meshkit.addresses import HostPort
from meshkit.config import DRAIN_SECONDS, GRACE_SECONDS
from meshkit.errors import Cancelled, InvalidArgument, Unavailable
from meshkit.fastapi.problem_details import AppError
from meshkit.http.limits import DEFAULT_LIMITS
from meshkit.http.refusals import CANCELLED_FOR, DISCONNECTED
from meshkit.http.server import first, listen_socket
from meshkit.http.servers import serving_on

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp

    from meshkit.fastapi.problem_details import Problems
    from meshkit.http.limits import Limits
    from meshkit.http.refusals import Refusal
    from meshkit.http_settings import HttpServer
    from meshkit.lifecycle import Stop
    from meshkit.tls import TlsFiles

__all__ = ["CANCELLED_FOR", "ClientDisconnected", "RefusedRequest", "ShuttingDown", "listen_socket", "serve"]

log = logging.getLogger("meshkit.http")


class ClientDisconnected(AppError, Cancelled):
    """The client disconnected before its request had a response."""

    def __init__(self) -> None:
        super().__init__(DISCONNECTED.detail)


class RefusedRequest(AppError, InvalidArgument):
    """The bytes of the request are not what the parser accepts."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.reason, self.http = refusal.reason, refusal.status


class ShuttingDown(AppError, Unavailable):
    """The process is stopping; another one may serve the request."""

    def __init__(self) -> None:
        super().__init__("this server is shutting down")


class ProblemRenderer:
    """Renders refusals as problems. A refused request has no path that could be repeated."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def error(self, refusal: Refusal) -> AppError:
        """See Renderer."""
        return ClientDisconnected() if refusal is DISCONNECTED else RefusedRequest(refusal)

    def response(self, refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """See Renderer."""
        response = self._problems.of_error("/", self.error(refusal))
        return response.raw_headers, bytes(response.body)


async def serve(
    app: ASGIApp,
    *,
    problems: Problems,
    listener: socket.socket,
    stop: Stop,
    drain_seconds: float = DRAIN_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
    limits: Limits = DEFAULT_LIMITS,
    server: HttpServer = "uvicorn",
    tls: TlsFiles | None = None,
) -> None:
    """Serves until `stop` is requested, then drains and stops.

    Args:
        app: the application.
        problems: renders the responses to requests that are refused for their bytes.
        listener: a listening socket, which is closed at the end.
        stop: ends the serving; a second request skips drain and grace.
        drain_seconds: how long to continue accepting, with `Connection: close` in every response.
        grace_seconds: how long requests in flight may take after that, before they are cancelled.
        limits: what one client may take.
        server: which one runs the app; another one than uvicorn has only some of the limits.
        tls: for HTTPS; plain text without.

    Raises:
        ImportError: the extra of the server is not installed.
    """
    serving = serving_on(server)
    address = HostPort(*listener.getsockname()[:2])
    log.info("listening on %s", address, extra={"port": address.port})
    async with serving(
        app,
        renderer=ProblemRenderer(problems),
        listener=listener,
        stop=stop,
        grace_seconds=grace_seconds,
        limits=limits,
        tls=tls,
    ) as server_task:
        await first(stop.requested, server_task)
        if not server_task.done():
            log.info("draining")
            await stop.pause(drain_seconds)
    log.info("stopped")
