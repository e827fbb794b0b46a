"""Errors to `application/problem+json` responses (RFC 9457): one table (meshkit.errors), one shape."""

from __future__ import annotations

import http
import math
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from opentelemetry.trace import format_trace_id, get_current_span
from starlette.exceptions import HTTPException

from api_edge.domain import DOMAIN
from api_edge.schemas import Problem, Violation
from meshkit.errors import ServiceError, Unavailable, mapping_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI, Request

MEDIA_TYPE = "application/problem+json"

REASONS = {
    404: "UNKNOWN_ROUTE",
    405: "METHOD_NOT_ALLOWED",
    413: "CONTENT_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "INVALID_REQUEST",
    500: "INTERNAL",
}
"""The reasons of errors that HTTP itself knows, by status."""

RETRY_AFTER = 1.0
"""Seconds to wait before another try where the error does not say: a lost backend is tried again once a second."""


def add_handlers(app: FastAPI) -> None:
    """Renders every error that reaches the app as a problem."""
    app.exception_handler(ServiceError)(_service_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_http_error)


def internal_error(path: str) -> Response:
    """The problem of a bug; what it was stands in the log alone."""
    return http_problem(path, 500, "internal error")


def http_problem(path: str, status: int, detail: str, *, errors: Sequence[Violation] = ()) -> Response:
    """The problem of an error that HTTP itself knows."""
    reason = REASONS.get(status, http.HTTPStatus(status).name)
    return _response(path, status, detail=detail, reason=reason, domain=DOMAIN, errors=errors)


def service_problem(path: str, error: ServiceError) -> Response:
    """The problem of a ServiceError: its kind decides the status."""
    response = _response(
        path,
        mapping_of(error).http,
        detail=error.message,
        reason=error.reason,
        domain=error.domain,
        metadata=error.fields,
        errors=[Violation(field=item.field, description=item.description) for item in error.violations],
    )
    if error.retry_after is not None or isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or RETRY_AFTER)))
    return response


async def _service_error(request: Request, error: ServiceError) -> Response:
    return service_problem(request.url.path, error)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    errors = [_violation(item) for item in error.errors()]
    fields = ", ".join(violation.field for violation in errors)
    return http_problem(request.url.path, 422, f"the request is not valid: {fields}", errors=errors)


async def _http_error(request: Request, error: HTTPException) -> Response:
    detail = str(error.detail)
    if error.status_code in {404, 405}:
        detail = f"there is no {request.method} {request.url.path}"
    response = http_problem(request.url.path, error.status_code, detail)
    response.headers.update(error.headers or {})
    return response


def _violation(item: dict[str, Any]) -> Violation:
    """One error of pydantic's: `("body", "lines", 0, "sku")` is the field `lines[0].sku`."""
    source, *path = item["loc"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return Violation(field=field or str(source), description=item["msg"])


def _response(
    path: str,
    status: int,
    *,
    detail: str,
    reason: str,
    domain: str,
    metadata: dict[str, str] | None = None,
    errors: Sequence[Violation] = (),
) -> Response:
    problem = Problem(
        type=f"urn:aiomesh:problem:{reason.lower().replace('_', '-')}",
        title=_title(status),
        status=status,
        detail=detail,
        instance=path,
        reason=reason,
        domain=domain,
        metadata=metadata or {},
        errors=list(errors),
        trace_id=format_trace_id(get_current_span().get_span_context().trace_id),
    )
    return Response(problem.model_dump_json(), status, media_type=MEDIA_TYPE)


def _title(status: int) -> str:
    return "Client Closed Request" if status == 499 else http.HTTPStatus(status).phrase  # noqa: PLR2004 - not an IANA status
