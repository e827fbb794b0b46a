"""One error of each kind, as in the comments of error_reason.proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inventory.domain import (
    AdjustmentBelowReserved,
    DatabaseUnavailable,
    InsufficientStock,
    InvalidPageToken,
    InvalidRequest,
    Line,
    RequestIdReused,
    ReservationCommitted,
    ReservationExpired,
    ReservationReleased,
    Stock,
    UnknownReservation,
    UnknownSku,
)
from meshkit.errors import FieldViolation

if TYPE_CHECKING:
    from meshkit.errors import ServiceError

STOCK = Stock("TEA-0001", "Assam", "tea", on_hand=7, reserved=5, version=1)

EXAMPLES: list[ServiceError] = [
    InvalidRequest([FieldViolation("quantity", "must be 1 to 1000000")]),
    InvalidPageToken(),
    UnknownSku("TEA-9999"),
    InsufficientStock(Line("TEA-0001", 12), available=5),
    UnknownReservation("0b06b7a1-…"),
    ReservationCommitted("0b06b7a1-…"),
    ReservationReleased("0b06b7a1-…"),
    ReservationExpired("0b06b7a1-…"),
    RequestIdReused("0b06b7a1-…"),
    AdjustmentBelowReserved(STOCK, delta=-3),
    DatabaseUnavailable("the database cannot be reached", retry_after=1.0),
]
