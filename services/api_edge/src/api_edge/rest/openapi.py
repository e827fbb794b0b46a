"""The errors of a route in OpenAPI: every reason that it may return, with an example."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from api_edge.rest.examples import ORDER_ID
from meshkit.fastapi.problem_details import MEDIA_TYPE, Problem, title

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.routing import APIRoute

EDGE, INVENTORY, PRICING = "api_edge.aiomesh", "inventory.aiomesh", "pricing.aiomesh"
SCHEMAS = "#/components/schemas/"


@dataclass(frozen=True)
class Example:
    """An example of one error."""

    status: int
    domain: str
    detail: str
    metadata: dict[str, str] = field(default_factory=dict)
    errors: tuple[dict[str, str], ...] = ()


WRONG_FIELD = {"field": "lines[0].quantity", "description": "Input should be greater than or equal to 1"}

EXAMPLES = {
    "INVALID_TIMEOUT": Example(400, EDGE, "X-Request-Timeout-Ms must be a whole number of milliseconds, 1 to 30000"),
    "INVALID_IDEMPOTENCY_KEY": Example(400, EDGE, "Idempotency-Key must be 1 to 255 printable ASCII characters"),
    "INVALID_PAGE_TOKEN": Example(
        400, INVENTORY, "the page token is invalid; use the next_page_token of the previous page"
    ),
    "UNKNOWN_CURRENCY": Example(400, PRICING, "no exchange rate for currency 'XXX'", {"currency": "XXX"}),
    "UNKNOWN_SKU": Example(404, INVENTORY, "there is no SKU 'TEA-9999'", {"sku": "TEA-9999"}),
    "UNKNOWN_ORDER": Example(404, EDGE, f"there is no order {ORDER_ID}", {"order_id": ORDER_ID}),
    "REQUEST_TIMEOUT": Example(408, EDGE, "the body did not arrive within the time budget of the request"),
    "INSUFFICIENT_STOCK": Example(
        409,
        INVENTORY,
        "TEA-0001: 501 requested, 500 available",
        {"sku": "TEA-0001", "requested": "501", "available": "500"},
    ),
    "REQUEST_ID_REUSED": Example(
        409,
        INVENTORY,
        "This Idempotency-Key was already used for a different order; use a new key",
        {"request_id": ORDER_ID},
    ),
    "RESERVATION_COMMITTED": Example(
        409,
        INVENTORY,
        f"reservation {ORDER_ID} is committed and can no longer be released",
        {"reservation_id": ORDER_ID},
    ),
    "RESERVATION_RELEASED": Example(
        409,
        INVENTORY,
        f"reservation {ORDER_ID} is released and can no longer be committed",
        {"reservation_id": ORDER_ID},
    ),
    "RESERVATION_EXPIRED": Example(409, INVENTORY, f"reservation {ORDER_ID} has expired", {"reservation_id": ORDER_ID}),
    "CONTENT_TOO_LARGE": Example(413, EDGE, "the body is larger than 131072 bytes"),
    "UNSUPPORTED_MEDIA_TYPE": Example(415, EDGE, "send the body without Content-Encoding"),
    "INVALID_REQUEST": Example(422, EDGE, "the request is invalid: lines[0].quantity", errors=(WRONG_FIELD,)),
    "RESOURCE_EXHAUSTED": Example(429, "", "too many calls are unfinished; retry later"),
    "INTERNAL": Example(500, EDGE, "internal error"),
    "UNAVAILABLE": Example(503, "", "inventory GetStock failed: UNAVAILABLE"),
    "DATABASE_UNAVAILABLE": Example(503, INVENTORY, "the database cannot serve now"),
    "SHUTTING_DOWN": Example(503, EDGE, "this server is shutting down"),
    "DEADLINE_EXCEEDED": Example(504, "", "inventory GetStock failed: DEADLINE_EXCEEDED"),
}
"""An example of every reason, by reason."""

EVERYWHERE = (
    "INVALID_TIMEOUT",
    "CONTENT_TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE",
    "INVALID_REQUEST",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATABASE_UNAVAILABLE",
    "SHUTTING_DOWN",
    "DEADLINE_EXCEEDED",
)
"""The reasons that any route may return."""

RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait before a retry", "schema": {"type": "integer", "minimum": 1}}
}
RETRYABLE = {429, 503}


def error_responses(instance: str, *reasons: str, **special: Example) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may return these reasons, and those of EVERYWHERE.

    Args:
        instance: a path of the route, for the examples.
        reasons: keys of EXAMPLES.
        special: examples of this route instead of those in EXAMPLES, with the same status.
    """
    by_status = sorted({*reasons, *EVERYWHERE}, key=lambda reason: (EXAMPLES[reason].status, reason))
    groups = itertools.groupby(by_status, lambda reason: EXAMPLES[reason].status)
    examples = EXAMPLES | special
    return {
        status: _response(status, {reason: _problem(reason, examples[reason], instance) for reason in group})
        for status, group in groups
    }


def operation_id(route: APIRoute) -> str:
    """The id of a route's operation: its name."""
    return route.name


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document with the schema of a problem.

    The schema is added here because FastAPI, given it as a model, would document it as application/json as well.
    """
    if not app.openapi_schema:
        schema = type(app).openapi(app)
        _, schemas = models_json_schema([(Problem, "serialization")], ref_template=SCHEMAS + "{model}")
        properties = schemas["$defs"][Problem.__name__]["properties"]
        for name, value in _problem("INSUFFICIENT_STOCK", EXAMPLES["INSUFFICIENT_STOCK"], "/v1/orders").items():
            properties[name] = dict(sorted({**properties[name], "examples": [value]}.items()))
        schema["components"]["schemas"] |= schemas["$defs"]
    return app.openapi_schema or {}


def _response(status: int, problems: dict[str, dict[str, Any]]) -> dict[str, Any]:
    content = {
        "schema": {"$ref": SCHEMAS + Problem.__name__},
        "examples": {reason: {"value": problem} for reason, problem in problems.items()},
    }
    return {
        "description": f"{title(status)}: {', '.join(problems)}",
        "content": {MEDIA_TYPE: content},
        "headers": RETRY_AFTER if status in RETRYABLE else {},
    }


def _problem(reason: str, example: Example, instance: str) -> dict[str, Any]:
    return {
        "type": f"urn:aiomesh:problem:{reason.lower().replace('_', '-')}",
        "title": title(example.status),
        "status": example.status,
        "detail": example.detail,
        "instance": instance,
        "reason": reason,
        "domain": example.domain,
        "metadata": example.metadata,
        "errors": list(example.errors),
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
