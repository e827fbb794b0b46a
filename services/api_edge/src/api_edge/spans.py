"""The attribute that the storefront adds to the server span of a request, for every protocol."""

from __future__ import annotations

from opentelemetry.trace import get_current_span

ORDER_ID = "order.id"


def set_order_id(order_id: str) -> None:
    """Sets the order of the request on the current span. Backend calls have their own spans: call it outside them."""
    get_current_span().set_attribute(ORDER_ID, order_id)
