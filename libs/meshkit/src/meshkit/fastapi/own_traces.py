"""ASGI middleware for a public edge: every request begins a trace of its own, with a link to the caller's span.

So a stranger chooses neither the ids of our traces nor which of them are recorded, and cannot fill them with baggage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context, propagate, trace
from starlette.datastructures import Headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

CALLER = "meshkit.caller"
"""The key in the ASGI scope of the span context that the caller sent, which the SERVER span links."""


class OwnTraces:
    """Removes the headers of trace context and baggage from a request, after it has noted the caller's span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] == "http":
            scope = _without_context(scope)
        await self._app(scope, receive, send)


def _without_context(scope: Scope) -> Scope:
    propagator = propagate.get_global_textmap()
    names = {name.lower().encode() for name in propagator.fields}
    fields = [field for field in scope["headers"] if field[0] not in names]
    if len(fields) == len(scope["headers"]):
        return scope
    sent = propagator.extract(Headers(scope=scope), context.Context())
    caller = trace.get_current_span(sent).get_span_context()
    return {**scope, "headers": fields, CALLER: caller if caller.is_valid else None}
