"""One error of each kind, as in the comments of error_reason.proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api_edge.domain import InvalidIdempotencyKey, InvalidRequest, UnknownCurrency, UnknownOrder, UnknownSku
from meshkit.errors import FieldViolation

if TYPE_CHECKING:
    from meshkit.errors import ServiceError

EXAMPLES: list[ServiceError] = [
    InvalidRequest([FieldViolation("quantity", "must be 1 to 1000000")]),
    UnknownSku(["TEA-9998", "TEA-9999"]),
    UnknownOrder("0b06b7a1-…"),
    UnknownCurrency("eur"),
    InvalidIdempotencyKey(),
]
