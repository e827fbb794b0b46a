"""The examples in the API's documentation: the responses of the seeded shop while no other promotions apply."""

from __future__ import annotations

from typing import Any

from api_edge.rules import order_id

KEY = "5f1c0a9b7d3e48264c9a01f2e8b7d635"
ORDER_ID = order_id(KEY)

SKUS = ["TEA-0001", "TEA-0002"]

PRODUCT: dict[str, Any] = {
    "sku": "TEA-0001",
    "title": "Darjeeling First Flush Margaret's Hope, 100 g",
    "category": "tea",
    "stock": {"on_hand": 500, "reserved": 0, "available": 500, "version": 1},
    "price": {"currency": "EUR", "unit_price": "15.21", "quantity": 1, "total": "15.21"},
    "problems": [],
}
SECOND_PRODUCT: dict[str, Any] = {
    "sku": "TEA-0002",
    "title": "Darjeeling Second Flush Castleton, 100 g",
    "category": "tea",
    "stock": {"on_hand": 60, "reserved": 0, "available": 60, "version": 1},
    "price": {"currency": "EUR", "unit_price": "14.50", "quantity": 1, "total": "14.50"},
    "problems": [],
}
PAGE = {"products": [PRODUCT, SECOND_PRODUCT], "next_page_token": ""}

NEW_ORDER: dict[str, Any] = {
    "currency": "EUR",
    "lines": [{"sku": "TEA-0001", "quantity": 2}, {"sku": "TEA-0002", "quantity": 1}],
}


def order(state: str) -> dict[str, Any]:
    """The order that NEW_ORDER with KEY creates, in a given state."""
    return {
        "id": ORDER_ID,
        "state": state,
        "currency": "EUR",
        "lines": [
            {"sku": "TEA-0001", "quantity": 2, "unit_price": "15.21", "total": "30.42"},
            {"sku": "TEA-0002", "quantity": 1, "unit_price": "14.50", "total": "14.50"},
        ],
        "total": "44.92",
        "expire_time": "2026-01-01T00:15:00Z",
    }


def returns(**examples: object) -> dict[str, Any]:
    """The example responses of a route, by their names, in OpenAPI."""
    named = {name.replace("_", " "): {"value": value} for name, value in examples.items()}
    return {"content": {"application/json": {"examples": named}}}
