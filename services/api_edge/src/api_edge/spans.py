"""What the storefront adds to the server span of a request, whatever its protocol."""

from __future__ import annotations

from opentelemetry.trace import get_current_span

ORDER_ID = "order.id"


def set_order_id(order_id: str) -> None:
    """Says which order the request is about. Calls to backends have spans of their own: set it outside of them."""
    get_current_span().set_attribute(ORDER_ID, order_id)
