"""The page of metrics on an address of its own, for processes that serve no other HTTP."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from meshkit.addresses import HostPort
from meshkit.http.limits import DEFAULT_LIMITS
from meshkit.http.refusals import Refusal, Refused
from meshkit.http.server import listen_socket, serving
from meshkit.lifecycle import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from meshkit.telemetry.prometheus import MetricsPage

log = logging.getLogger("meshkit.metrics")

LIMITS = replace(DEFAULT_LIMITS, connections=min(32, DEFAULT_LIMITS.connections))
"""A page has few readers; the other connections are for the service."""


@asynccontextmanager
async def serving_metrics(page: MetricsPage, listen: str) -> AsyncIterator[None]:
    """Serves the page at `host:port` during the block. Port 0 takes a free port. Raises AddressInUse."""
    listener, stop = listen_socket(listen), Stop()
    address = HostPort(*listener.getsockname()[:2])
    log.info("metrics on http://%s/metrics", address, extra={"port": address.port})
    async with serving(
        PageApp(page), renderer=ShortProblems(), listener=listener, stop=stop, grace_seconds=0, limits=LIMITS
    ):
        yield


class PageApp:
    """Responds to GET and HEAD with the page, on any path, as prometheus_client does."""

    def __init__(self, page: MetricsPage) -> None:
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Runs the app (ASGI)."""
        status, fields, body = 405, {"Allow": "GET, HEAD", "Content-Type": "text/plain"}, b"only GET and HEAD\n"
        if scope["method"] in {"GET", "HEAD"}:
            status = 200
            fields, body = self._page.render(_field(scope, b"accept"), _field(scope, b"accept-encoding"))
        fields["Content-Length"] = str(len(body))
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class ShortProblems:
    """Renders refusals as problems that have no type of their own (RFC 9457, section 4.2.1)."""

    def error(self, refusal: Refusal) -> Exception:
        """See Renderer."""
        return Refused(refusal)

    def response(self, refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """See Renderer."""
        title = HTTPStatus(refusal.status).phrase
        problem = {"type": "about:blank", "title": title, "status": refusal.status, "detail": refusal.detail}
        body = json.dumps(problem).encode()
        return [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))], body


def _field(scope: Scope, name: bytes) -> str:
    return ", ".join(value.decode("latin-1") for other, value in scope["headers"] if other == name)
