"""Turns errors into `application/problem+json` responses (RFC 9457), by the table of meshkit.errors."""

from __future__ import annotations

import http
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from opentelemetry.trace import format_trace_id
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.routing import Route

from meshkit.current_span import current_span_context
from meshkit.errors import ServiceError, mapping_of, retry_delay
from meshkit.fastapi.prefix import route_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI, Request
    from starlette.routing import BaseRoute

MEDIA_TYPE = "application/problem+json"

REASONS = {
    404: "UNKNOWN_ROUTE",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "CONTENT_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    421: "MISDIRECTED_REQUEST",
    422: "INVALID_REQUEST",
    500: "INTERNAL",
}
"""The reasons of the errors that FastAPI and this package raise, by status."""

TITLES = {status.value: status.phrase for status in http.HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
    499: "Client Closed Request",
}
"""The names of HTTP statuses (RFC 9110), some of which Python lacks, or has only since 3.13."""

NOT_READABLE = "There was an error parsing the body"
"""FastAPI's detail of a body that is not text."""

MAX_VIOLATIONS, MAX_FIELD = 30, 200
"""How much of an invalid request a response repeats: the number of fields, and the length of a field's path."""


class Violation(BaseModel):
    """One invalid field of a request."""

    field: str = Field(
        examples=["lines[0].quantity"], description="The field's path in the body, or the parameter's name"
    )
    description: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """An error (RFC 9457, application/problem+json)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    reason: str
    domain: str = Field(description="The domain of the reason")
    metadata: dict[str, str]
    errors: list[Violation] = Field(description="The invalid fields")
    trace_id: str


NOT_JSON = Violation(field="body", description="is not JSON in UTF-8")

PATH_CHARACTERS = "/:@!$&'()*+,;="
"""The characters of a path that need no escape, besides letters, digits and -._~ (RFC 3986, section 3.3)."""

FILE_METHODS = ("GET", "HEAD")
"""The methods of a file, which is not a route."""


class InvalidBody(HTTPException):
    """The body of a request is not what its media type says."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(422)
        self.violation = violation


class AppError(ServiceError):
    """An error of the HTTP side itself. Its domain is that of the `Problems` that render it.

    Attributes:
        http: the HTTP status; None: that of its kind.
    """

    http: int | None = None


class Problems:
    """Turns errors into problems.

    Args:
        domain: the domain of HTTP's own errors, such as `shop.example`.
        type_prefix: the part of a problem's type before the reason.
    """

    def __init__(self, *, domain: str, type_prefix: str = "urn:problem:") -> None:
        self._domain = domain
        self._type_prefix = type_prefix

    def add_handlers(self, app: FastAPI, routes: Sequence[BaseRoute] = ()) -> None:
        """Renders every error that reaches the app as a problem.

        The Allow header of a 405 lists the methods of the app's own routes and of `routes`. Pass the routes of included
        routers, which the app's own routes lack.
        """
        app.exception_handler(ServiceError)(self._service_error)
        app.exception_handler(RequestValidationError)(self._validation_error)
        app.exception_handler(InvalidBody)(self._invalid_body)
        app.exception_handler(HTTPException)(partial(self._http_error, app, routes))

    def of_error(self, path: str, error: ServiceError) -> Response:
        """The problem of a ServiceError, whose kind determines the status."""
        response = self._response(
            path,
            (isinstance(error, AppError) and error.http) or mapping_of(error).http,
            detail=error.message,
            reason=error.reason,
            domain=self._domain if isinstance(error, AppError) else error.domain,
            metadata=error.fields,
            errors=[Violation(field=item.field, description=item.description) for item in error.violations],
        )
        if (delay := retry_delay(error)) is not None:
            response.headers["Retry-After"] = str(max(1, math.ceil(delay)))
        return response

    def of_status(self, path: str, status: int, detail: str, *, errors: Sequence[Violation] = ()) -> Response:
        """The problem of one of HTTP's own errors."""
        reason = REASONS.get(status) or _name(status)
        return self._response(path, status, detail=detail, reason=reason, domain=self._domain, errors=errors)

    def of_bug(self, path: str) -> Response:
        """The problem of an unexpected exception, which only the log shows."""
        return self.of_status(path, 500, "internal error")

    async def _service_error(self, request: Request, error: ServiceError) -> Response:
        return self.of_error(request.scope["path"], error)

    async def _validation_error(self, request: Request, error: RequestValidationError) -> Response:
        return self._invalid_request(request, [_violation(item) for item in error.errors()[:MAX_VIOLATIONS]])

    async def _invalid_body(self, request: Request, error: InvalidBody) -> Response:
        return self._invalid_request(request, [error.violation])

    def _invalid_request(self, request: Request, errors: Sequence[Violation]) -> Response:
        fields = ", ".join(dict.fromkeys(violation.field for violation in errors))
        return self.of_status(request.scope["path"], 422, f"the request is invalid: {fields}", errors=errors)

    async def _http_error(
        self, app: FastAPI, routes: Sequence[BaseRoute], request: Request, error: HTTPException
    ) -> Response:
        path, status = request.scope["path"], error.status_code
        match status, error.detail:
            case 400, problem if problem == NOT_READABLE:
                return self.of_status(path, 422, "the request is invalid: body", errors=[NOT_JSON])
            case 404, name if name == title(404):
                return self.of_status(path, 404, f"there is no path {path}")
            case 405, name if name == title(405):
                response = self.of_status(path, 405, f"{path} does not support {request.method}")
                allowed = _methods([*app.routes, *routes], route_path(request.scope)) or FILE_METHODS
                response.headers["Allow"] = ", ".join(allowed)
                return response
        return self._of_route(path, error)

    def _of_route(self, path: str, error: HTTPException) -> Response:
        """The problem of an HTTPException that a route has raised. FastAPI's may have any JSON as its detail."""
        status = error.status_code
        detail: Any = error.detail
        text = detail if isinstance(detail, str) else to_json(detail).decode()
        reason = _name(status) if status == http.HTTPStatus.NOT_FOUND else REASONS.get(status) or _name(status)
        response = self._response(path, status, detail=text, reason=reason, domain=self._domain)
        response.headers.update(error.headers or {})
        return response

    def _response(
        self,
        path: str,
        status: int,
        *,
        detail: str,
        reason: str,
        domain: str,
        metadata: dict[str, str] | None = None,
        errors: Sequence[Violation] = (),
    ) -> Response:
        span = current_span_context()
        problem = Problem(
            type=self._type_prefix + reason.lower().replace("_", "-"),
            title=title(status),
            status=status,
            detail=detail,
            instance=quote(path, safe=PATH_CHARACTERS),
            reason=reason,
            domain=domain,
            metadata=metadata or {},
            errors=list(errors),
            trace_id=format_trace_id(span.trace_id) if span.is_valid else "",
        )
        return Response(problem.model_dump_json(), status, media_type=MEDIA_TYPE)


def title(status: int) -> str:
    """The name of an HTTP status."""
    return TITLES.get(status, f"Status {status}")


def _name(status: int) -> str:
    """The name of an HTTP status as a reason, such as NOT_FOUND."""
    return re.sub(r"\W+", "_", title(status).upper())


def _methods(routes: Sequence[BaseRoute], path: str) -> list[str]:
    """The methods of a path, HEAD beside GET. Starlette itself lists only those of the first route that matches."""
    matches = [route for route in routes if isinstance(route, Route) and route.path_regex.match(path)]
    methods = {method for route in matches for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _violation(item: dict[str, Any]) -> Violation:
    """One of pydantic's errors: `("body", "lines", 0, "sku")` becomes the field `lines[0].sku`."""
    if item["type"] == "json_invalid":
        return NOT_JSON
    source, *keys = item["loc"]
    return Violation(field=field_of(keys) or str(source), description=item["msg"])


def field_of(keys: Sequence[object]) -> str:
    """The path of a field: `lines[0].sku` for `("lines", 0, "sku")`. Empty without keys."""
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return path.removeprefix(".")[:MAX_FIELD]
