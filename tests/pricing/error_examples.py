"""One error of each kind, as in the comments of error_reason.proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.errors import FieldViolation
from pricing.domain import (
    DatabaseUnavailable,
    InvalidRequest,
    RequestIdReused,
    UnknownCurrency,
    UnknownQuote,
    UnknownSku,
)

if TYPE_CHECKING:
    from meshkit.errors import ServiceError

EXAMPLES: list[ServiceError] = [
    InvalidRequest([FieldViolation("quantity", "must be 1 to 1000000")]),
    UnknownCurrency("XTS"),
    UnknownSku("TEA-9999"),
    UnknownQuote("0b06b7a1-…"),
    RequestIdReused("0b06b7a1-…"),
    DatabaseUnavailable("the database cannot be reached", retry_after=1.0),
]
