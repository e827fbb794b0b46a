"""GET /v1/products and GET /v1/products/{sku}: inventory and pricing, called concurrently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query

from api_edge.domain import Line
from api_edge.rest.examples import PAGE, PRODUCT, SKUS, returns
from api_edge.rest.openapi import EDGE, Example, error_responses, operation_id
from api_edge.rest.schemas import IN_DIGITS, Product, ProductPage, Sku
from api_edge.rules import (
    DEFAULT_CURRENCY,
    DEFAULT_PAGE,
    DEFAULT_QUANTITY,
    MAX_LINES,
    MAX_PAGE,
    MAX_QUANTITY,
    READ_SECONDS,
)
from meshkit.fastapi.budget import route_with_budget

if TYPE_CHECKING:
    from api_edge.storefront import Storefront

Currency = Annotated[str, Query(description="ISO 4217", examples=["EUR"])]
Quantity = Annotated[int, Query(ge=1, le=MAX_QUANTITY, description="Units to price"), IN_DIGITS]
Strict = Annotated[bool, Query(description="Return an error instead of `price: null`")]


def router(storefront: Storefront) -> APIRouter:
    """The routes of products."""
    routes = APIRouter(
        prefix="/v1/products",
        tags=["products"],
        route_class=route_with_budget(READ_SECONDS),
        generate_unique_id_function=operation_id,
    )

    @routes.get(
        "",
        summary="List products, or read some of them",
        responses={
            200: returns(two_products=PAGE),
            **error_responses(
                "/v1/products",
                "INVALID_PAGE_TOKEN",
                "UNKNOWN_CURRENCY",
                "UNKNOWN_SKU",
                UNKNOWN_SKU=Example(404, EDGE, "there is no product TEA-9999", {"sku": "TEA-9999"}),
            ),
        },
    )
    async def list_products(
        sku: Annotated[
            list[Sku],
            Query(
                max_length=MAX_LINES,
                description="Return these products instead of a page",
                json_schema_extra={"example": SKUS},
            ),
        ] = [],  # noqa: B006 - FastAPI copies it
        page_size: Annotated[int, Query(ge=1, le=MAX_PAGE), IN_DIGITS] = DEFAULT_PAGE,
        page_token: Annotated[str, Query(description="`next_page_token` of the previous page")] = "",
        currency: Currency = DEFAULT_CURRENCY,
        quantity: Quantity = DEFAULT_QUANTITY,
        strict: Strict = False,  # noqa: FBT002 - a query parameter
    ) -> ProductPage:
        """A page of all products, sorted by SKU. With `sku`, only those products, in the order of the request."""
        if sku:
            products, next_page_token = await storefront.products(sku, currency, quantity, strict=strict), ""
        else:
            products, next_page_token = await storefront.page(page_size, page_token, currency, quantity, strict=strict)
        return ProductPage.of(products, next_page_token)

    @routes.get(
        "/{sku}",
        summary="Read a product",
        responses={
            200: returns(with_a_price=PRODUCT),
            **error_responses("/v1/products/TEA-9999", "UNKNOWN_CURRENCY", "UNKNOWN_SKU"),
        },
    )
    async def get_product(
        sku: Annotated[Sku, Path(json_schema_extra={"example": PRODUCT["sku"]})],
        currency: Currency = DEFAULT_CURRENCY,
        quantity: Quantity = DEFAULT_QUANTITY,
        strict: Strict = False,  # noqa: FBT002 - a query parameter
    ) -> Product:
        """A product with its stock and the price of `quantity` units. `price` is null while pricing is unavailable."""
        return Product.of(await storefront.product(Line(sku, quantity), currency, strict=strict))

    return routes
