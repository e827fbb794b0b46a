"""What OpenAPI says of the errors of a route: each problem with an example."""

from __future__ import annotations

from typing import Any

from api_edge.problems import MEDIA_TYPE, title
from api_edge.schemas import Problem

WHEN = {
    400: ("INVALID_PAGE_TOKEN", "A header, a currency or a page token is not valid."),
    404: ("UNKNOWN_SKU", "It does not exist."),
    409: ("INSUFFICIENT_STOCK", "The state of the stock or of the order does not allow it."),
    413: ("CONTENT_TOO_LARGE", "The body is larger than 1 MiB."),
    415: ("UNSUPPORTED_MEDIA_TYPE", "The body is not application/json."),
    422: ("INVALID_REQUEST", "A parameter or the body is not valid; `errors` names the fields."),
    429: ("RESOURCE_EXHAUSTED", "Too much at once; `Retry-After` says when to try again."),
    500: ("INTERNAL", "A bug. The log of this `trace_id` has the traceback."),
    503: ("UNAVAILABLE", "A service cannot be reached; `Retry-After` says when to try again."),
    504: ("DEADLINE_EXCEEDED", "The request's time budget is spent."),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses, and with those that any route may answer."""
    return {status: _response(status) for status in sorted({*statuses, 400, 422, 429, 500, 503, 504})}


def _response(status: int) -> dict[str, Any]:
    reason, when = WHEN[status]
    example = {
        "type": f"urn:aiomesh:problem:{reason.lower().replace('_', '-')}",
        "title": title(status),
        "status": status,
        "detail": when,
        "instance": "/v1/products/TEA-0001",
        "reason": reason,
        "domain": "",
        "metadata": {},
        "errors": [],
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {"description": when, "model": Problem, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}
