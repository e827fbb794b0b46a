"""The time budget of a request. The class of a route declares it, documents its header, and applies it.

    routes = APIRouter(prefix="/v1/orders", route_class=route_with_budget(5.0))

It covers the whole request, including the reading of the body, whose JSON is read strictly: see
`meshkit.fastapi.json_body`. Plain routes may take a shorter way: see `meshkit.fastapi.plain_route`. Routes of other
classes have no budget.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Response
from fastapi.routing import APIRoute

from meshkit.deadline import budget, remaining
from meshkit.errors import InvalidArgument
from meshkit.fastapi.json_body import JsonRequest
from meshkit.fastapi.plain_route import raise_error, responder
from meshkit.fastapi.problem_details import AppError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from meshkit.fastapi.plain_route import Respond

HEADER = "X-Request-Timeout-Ms"
FIELD = HEADER.lower().encode()
MAX_TIMEOUT_MS = 30_000


class InvalidTimeout(AppError, InvalidArgument):
    """The X-Request-Timeout-Ms header is invalid."""

    def __init__(self) -> None:
        super().__init__(f"{HEADER} must be a whole number of milliseconds, 1 to {MAX_TIMEOUT_MS}")


def route_with_budget(seconds: float) -> type[APIRoute]:
    """A class of routes whose requests have `seconds`, or the time in their X-Request-Timeout-Ms header."""

    class RouteWithBudget(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            extra = options.pop("openapi_extra", None) or {}
            parameters = [*extra.get("parameters", ()), _header(seconds)]
            super().__init__(path, endpoint, openapi_extra={**extra, "parameters": parameters}, **options)
            respond = responder(self)
            self.respond = respond and _within_budget(seconds, respond)  # for PlainRoutes

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                return await handler(JsonRequest(request.scope, request.receive))

            return handle

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise_error(scope)
            with budget(requested_seconds(scope) or seconds):
                await super().handle(scope, receive, send)

    return RouteWithBudget


def _within_budget(seconds: float, respond: Respond) -> Respond:
    async def respond_in_time(scope: Scope) -> ASGIApp | None:
        with budget(requested_seconds(scope) or seconds):
            way = await respond(scope)
            return partial(_send, remaining() or 0, way) if isinstance(way, Response) else way

    return respond_in_time


async def _send(left: float, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a response, such as a stream, within what is left of the budget."""
    with budget(left):
        await response(scope, receive, send)


def requested_seconds(scope: Scope) -> float | None:
    """The budget in the request's header, or None without one. Raises InvalidTimeout."""
    match [value.decode("latin-1") for name, value in scope["headers"] if name == FIELD]:
        case []:
            return None
        case [text] if re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= MAX_TIMEOUT_MS:
            return int(text) / 1000
    raise InvalidTimeout


def _header(seconds: float) -> dict[str, Any]:
    """The header of a route in OpenAPI. As a parameter of the function FastAPI would read it again, after the body."""
    description = f"Time budget in milliseconds; {seconds * 1000:.0f} if absent"
    schema = {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS}
    return {"name": HEADER, "in": "header", "required": False, "schema": schema, "description": description}
