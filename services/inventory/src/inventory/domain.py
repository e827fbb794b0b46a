"""The domain of stock and reservations: values, limits, rules and errors.

What a read makes by the hundred is a NamedTuple, which costs less than half of a frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from meshkit import validation
from meshkit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from datetime import datetime


DOMAIN = "inventory.aiomesh"

MAX_QUANTITY = 1_000_000
"""The most units of one line or one adjustment."""

MAX_LINES = 100
"""The most lines of one reservation."""

MAX_BATCH = 100
"""The most SKUs or reservations of one batch."""

MAX_PAGE = 100
DEFAULT_PAGE = 50

# Errors travel in HTTP/2 trailers, whose size is limited, so they repeat only this much of an invalid request.
_SHOWN_CHARACTERS = 64


class InvalidRequest(validation.InvalidRequest, domain=DOMAIN):
    """Fields of the request are missing or out of range; `violations` lists the first 30."""


class InvalidPageToken(InvalidArgument, domain=DOMAIN):
    """This service did not create the page token."""

    def __init__(self) -> None:
        super().__init__("the page token is invalid; use the next_page_token of the previous page")


class UnknownSku(NotFound, domain=DOMAIN):
    """There is no stock of this SKU."""

    def __init__(self, sku: str) -> None:
        super().__init__(f"there is no SKU {sku!r}", sku=sku)


class InsufficientStock(FailedPrecondition, domain=DOMAIN):
    """Fewer units are available than requested; nothing was reserved."""

    def __init__(self, line: Line, available: int) -> None:
        super().__init__(
            f"{line.sku}: {line.quantity} requested, {available} available",
            sku=line.sku,
            requested=line.quantity,
            available=available,
        )


class UnknownReservation(NotFound, domain=DOMAIN):
    """No reservation has this id."""

    def __init__(self, reservation_id: str) -> None:
        shown = reservation_id[:_SHOWN_CHARACTERS]
        super().__init__(f"there is no reservation {shown!r}", reservation_id=shown)


class ReservationCommitted(FailedPrecondition, domain=DOMAIN):
    """The reservation is committed and cannot be released."""

    def __init__(self, reservation_id: str) -> None:
        super().__init__(
            f"reservation {reservation_id} is committed and can no longer be released", reservation_id=reservation_id
        )


class ReservationReleased(FailedPrecondition, domain=DOMAIN):
    """The reservation is released and cannot be committed."""

    def __init__(self, reservation_id: str) -> None:
        super().__init__(
            f"reservation {reservation_id} is released and can no longer be committed", reservation_id=reservation_id
        )


class ReservationExpired(FailedPrecondition, domain=DOMAIN):
    """The reservation has expired and can be neither committed nor released."""

    def __init__(self, reservation_id: str) -> None:
        super().__init__(f"reservation {reservation_id} has expired", reservation_id=reservation_id)


class RequestIdReused(validation.RequestIdReused, domain=DOMAIN):
    """The request id was already used for a different request."""


class AdjustmentBelowReserved(FailedPrecondition, domain=DOMAIN):
    """The adjustment would leave fewer units on hand than are reserved."""

    def __init__(self, stock: Stock, delta: int) -> None:
        super().__init__(
            f"{stock.sku}: {stock.on_hand} on hand, {stock.reserved} of them reserved, cannot change by {delta}",
            sku=stock.sku,
            on_hand=stock.on_hand,
            reserved=stock.reserved,
            delta=delta,
        )


class DatabaseUnavailable(Unavailable, domain=DOMAIN):
    """The database cannot serve; nothing was changed, unless the connection broke in the middle of COMMIT."""


class Stock(NamedTuple):
    """The stock of one product. `on_hand` includes the reserved units."""

    sku: str
    title: str
    category: str
    on_hand: int
    reserved: int
    version: int

    @property
    def available(self) -> int:
        """Units that a new reservation can hold."""
        return self.on_hand - self.reserved


@dataclass(frozen=True, slots=True)
class Line:
    """Some units of one SKU."""

    sku: str
    quantity: int


class State(StrEnum):
    """The state of a reservation; all but RESERVED are final."""

    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Units held until `expire_time` (aware datetimes). The lines are in the order of the request."""

    reservation_id: str
    fingerprint: str
    state: State
    lines: tuple[Line, ...]
    create_time: datetime
    expire_time: datetime

    def at(self, now: datetime) -> Reservation:
        """The reservation with its state at `now`: EXPIRED from `expire_time` on, even before a sweep."""
        if self.state is State.RESERVED and self.expire_time <= now:
            return replace(self, state=State.EXPIRED)
        return self

    def needs_change_to(self, target: State) -> bool:
        """Whether the reservation still has to change to `target` (COMMITTED or RELEASED); False if it already has.

        Raises:
            ReservationCommitted, ReservationReleased, ReservationExpired: it has another final state.
        """
        if self.state in {target, State.RESERVED}:
            return self.state is State.RESERVED
        raise _ALREADY_FINAL[self.state](self.reservation_id)


_ALREADY_FINAL = {
    State.COMMITTED: ReservationCommitted,
    State.RELEASED: ReservationReleased,
    State.EXPIRED: ReservationExpired,
}


@dataclass(frozen=True, slots=True)
class ReservationRequest:
    """The lines that one attempt requests, and the digest of the whole order that the request id identifies."""

    request_id: str
    attempt_id: str
    lines: tuple[Line, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Units to add to the warehouse, or to remove if negative."""

    request_id: str
    sku: str
    delta: int


@dataclass(frozen=True, slots=True)
class Page:
    """Stocks ordered by SKU, and the SKU after which the next page starts (None on the last page)."""

    stocks: tuple[Stock, ...]
    next_after: str | None
