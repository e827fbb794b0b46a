"""POST, GET and DELETE of /v1/orders, and POST /v1/orders/{id}/commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Request, Response
from pydantic.json_schema import SkipJsonSchema  # noqa: TC002 - FastAPI reads it at run time

from api_edge.domain import Line
from api_edge.rest.examples import KEY as EXAMPLE_KEY
from api_edge.rest.examples import ORDER_ID, order, returns
from api_edge.rest.openapi import EDGE, Example, error_responses, operation_id
from api_edge.rest.schemas import NewOrder, Order
from api_edge.rules import KEY, ORDER_SECONDS, key_of
from meshkit.fastapi.budget import route_with_budget

if TYPE_CHECKING:
    from api_edge.storefront import Storefront

ORDER = f"/v1/orders/{ORDER_ID}"

KEY_DESCRIPTION = """\
Identifies the order: a repeat with the same key returns the same order. It is a secret, because whoever knows or
guesses it can read, commit and release the order. Send at least 128 random bits, such as the output of
`openssl rand -hex 16`; a UUIDv4 has 122. If the header is absent, the edge generates a key."""


WRONG_MEDIA_TYPE = "send the order with Content-Type: application/json"

CREATED = {
    "Location": {"description": "The order's path", "schema": {"type": "string"}, "example": ORDER},
    "Idempotency-Key": {
        "description": "The key of the order, a secret: whoever knows it can read, commit and release the order",
        "schema": {"type": "string"},
        "example": EXAMPLE_KEY,
    },
}


async def require_json(request: Request) -> None:
    """Rejects a body whose Content-Type is not JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, WRONG_MEDIA_TYPE)


async def read_key(
    request: Request,
    idempotency_key: Annotated[  # noqa: ARG001 - for the documentation
        str | SkipJsonSchema[None],
        Header(
            alias="Idempotency-Key",
            description=KEY_DESCRIPTION,
            json_schema_extra={"pattern": f"^{KEY}$"},
        ),
    ] = None,
) -> str:
    """The request's idempotency key, or a new one. Raises InvalidIdempotencyKey."""
    return key_of(request.headers.getlist("Idempotency-Key"))


OrderId = Annotated[str, Path(description="The order's id, a UUID")]


def router(storefront: Storefront) -> APIRouter:
    """The routes of orders."""
    routes = APIRouter(
        prefix="/v1/orders",
        tags=["orders"],
        route_class=route_with_budget(ORDER_SECONDS),
        generate_unique_id_function=operation_id,
    )

    @routes.post(
        "",
        summary="Place an order",
        status_code=201,
        responses={
            201: {"headers": CREATED, **returns(reserved=order("RESERVED"))},
            **error_responses(
                "/v1/orders",
                "INVALID_IDEMPOTENCY_KEY",
                "UNKNOWN_CURRENCY",
                "UNKNOWN_SKU",
                "REQUEST_TIMEOUT",
                "INSUFFICIENT_STOCK",
                "REQUEST_ID_REUSED",
                UNSUPPORTED_MEDIA_TYPE=Example(415, EDGE, WRONG_MEDIA_TYPE),
            ),
        },
        dependencies=[Depends(require_json)],
    )
    async def place_order(
        new_order: NewOrder, key: Annotated[str, Depends(read_key)], request: Request, response: Response
    ) -> Order:
        """Reserves all lines and freezes their prices, or does neither. Commit the order before `expire_time`."""
        lines = [Line(line.sku, line.quantity) for line in new_order.lines]
        order = Order.of(await storefront.place_order(key, lines, new_order.currency))
        response.headers["Location"] = f"{request.scope['root_path']}/v1/orders/{order.id}"
        response.headers["Idempotency-Key"] = key
        return order

    @routes.get(
        "/{order_id}",
        summary="Read an order",
        responses={
            200: returns(reserved=order("RESERVED"), expired=order("EXPIRED")),
            **error_responses(ORDER, "UNKNOWN_ORDER"),
        },
    )
    async def get_order(order_id: OrderId) -> Order:
        """The order as it is now."""
        return Order.of(await storefront.order(order_id))

    @routes.post(
        "/{order_id}/commit",
        summary="Commit an order",
        responses={
            200: returns(committed=order("COMMITTED")),
            **error_responses(f"{ORDER}/commit", "UNKNOWN_ORDER", "RESERVATION_RELEASED", "RESERVATION_EXPIRED"),
        },
    )
    async def commit_order(order_id: OrderId) -> Order:
        """Removes the units from the warehouse. A repeat returns the same. A released or expired order is a 409."""
        return Order.of(await storefront.commit_order(order_id))

    @routes.delete(
        "/{order_id}",
        summary="Release an order",
        responses={
            200: returns(released=order("RELEASED")),
            **error_responses(ORDER, "UNKNOWN_ORDER", "RESERVATION_COMMITTED", "RESERVATION_EXPIRED"),
        },
    )
    async def release_order(order_id: OrderId) -> Order:
        """Returns the units to the stock. A repeat returns the same. A committed or expired order is a 409."""
        return Order.of(await storefront.release_order(order_id))

    return routes
