"""What stock and reservations are made of: values, limits, rules and errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from meshkit import validation
from meshkit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from datetime import datetime


DOMAIN = "inventory.aiomesh"

MAX_QUANTITY = 1_000_000
"""Units of one line or one adjustment, at most."""

MAX_LINES = 100
"""Lines of one reservation and SKUs of one batch, at most."""

MAX_PAGE = 100
DEFAULT_PAGE = 50

# Errors travel in HTTP/2 trailers, whose size is limited: how much of a wrong request they repeat.
_SHOWN_CHARACTERS = 64


class InvalidRequest(validation.InvalidRequest, domain=DOMAIN):
    """Fields of the request are missing or out of range; `violations` names them, the first 30."""


class InvalidPageToken(InvalidArgument, domain=DOMAIN):
    """The page token is none that this service gave."""

    def __init__(self) -> None:
        super().__init__("the page token is not one of this service")


class UnknownSku(NotFound, domain=DOMAIN):
    """There is no stock of that SKU."""

    def __init__(self, sku: str) -> None:
        super().__init__(f"there is no SKU {sku!r}", sku=sku)


class InsufficientStock(FailedPrecondition, domain=DOMAIN):
    """Fewer units are available than asked for; nothing was reserved."""

    def __init__(self, line: Line, available: int) -> None:
        super().__init__(
            f"{line.sku}: {line.quantity} requested, {available} available",
            sku=line.sku,
            requested=line.quantity,
            available=available,
        )


class UnknownReservation(NotFound, domain=DOMAIN):
    """There is no reservation of that id."""

    def __init__(self, reservation_id: str) -> None:
        shown = reservation_id[:_SHOWN_CHARACTERS]
        super().__init__(f"no reservation {shown!r}", reservation_id=shown)


class ReservationCommitted(FailedPrecondition, domain=DOMAIN):
    """The reservation is committed and cannot be released."""

    def __init__(self, reservation_id: str) -> None:
        super().__init__(f"reservation {reservation_id} is committed", reservation_id=reservation_id)


class ReservationReleased(FailedPrecondition, domain=DOMAIN):
    """The reservation is released and cannot be committed."""

    def __init__(self, reservation_id: str) -> None:
        super().__init__(f"reservation {reservation_id} is released", reservation_id=reservation_id)


class ReservationExpired(FailedPrecondition, domain=DOMAIN):
    """The reservation has expired and can be neither committed nor released."""

    def __init__(self, reservation_id: str) -> None:
        super().__init__(f"reservation {reservation_id} has expired", reservation_id=reservation_id)


class RequestIdReused(validation.RequestIdReused, domain=DOMAIN):
    """The request id was used before, for a request with another content."""


class AdjustmentBelowReserved(FailedPrecondition, domain=DOMAIN):
    """The adjustment would leave fewer units than are reserved."""

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


@dataclass(frozen=True, slots=True)
class Stock:
    """What the warehouse knows about one product. `on_hand` counts the reserved units too."""

    sku: str
    title: str
    category: str
    on_hand: int
    reserved: int
    version: int

    @property
    def available(self) -> int:
        """Units that a new reservation can have."""
        return self.on_hand - self.reserved


@dataclass(frozen=True, slots=True)
class Line:
    """Some units of one SKU."""

    sku: str
    quantity: int


class State(StrEnum):
    """What has become of a reservation; all but RESERVED are final."""

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
        """The reservation as it counts now: past its `expire_time` it is EXPIRED, whoever has noticed."""
        if self.state is State.RESERVED and self.expire_time <= now:
            return replace(self, state=State.EXPIRED)
        return self

    def must_become(self, target: State) -> bool:
        """Whether this reservation, as it counts now, has yet to become COMMITTED or RELEASED; False if it is.

        Raises:
            ReservationCommitted, ReservationReleased, ReservationExpired: it has ended otherwise.
        """
        if self.state in {target, State.RESERVED}:
            return self.state is State.RESERVED
        raise _ENDED[self.state](self.reservation_id)


_ENDED = {
    State.COMMITTED: ReservationCommitted,
    State.RELEASED: ReservationReleased,
    State.EXPIRED: ReservationExpired,
}


@dataclass(frozen=True, slots=True)
class ReservationRequest:
    """What one attempt asks to hold, and the digest of all that its request id stands for."""

    request_id: str
    attempt_id: str
    lines: tuple[Line, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Units to add to the warehouse, or to take out if negative."""

    request_id: str
    sku: str
    delta: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some stocks by SKU, and the SKU after which the next page begins; None at the end."""

    stocks: tuple[Stock, ...]
    next_after: str | None
