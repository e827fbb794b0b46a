"""Converts protobuf to domain values and back. Validates requests: an error names every invalid field.

Stocks, which a response has by the hundred, are written into its fields, because a message that becomes a field of
another one is copied by way of its bytes.
"""

from __future__ import annotations

from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from aiomesh.inventory.v1 import inventory_pb2
from inventory.domain import (
    DEFAULT_PAGE,
    MAX_BATCH,
    MAX_LINES,
    MAX_PAGE,
    MAX_QUANTITY,
    Adjustment,
    InvalidRequest,
    Line,
    ReservationRequest,
    UnknownReservation,
)
from inventory.page_token import read_token
from meshkit.errors import FieldViolation
from meshkit.validation import is_uuid, reject, text_violations, uuid_violations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from aiomesh.inventory.v1 import inventory_service_pb2 as pb
    from inventory.domain import Reservation, Stock

_sku_violations = partial(text_violations, longest=64)
_fingerprint_violations = partial(text_violations, longest=128)


def to_sku(request: pb.GetStockRequest) -> str:
    """The SKU of a GetStock request.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    reject(_sku_violations("sku", request.sku), InvalidRequest)
    return request.sku


def to_skus(request: pb.BatchGetStockRequest) -> list[str]:
    """The SKUs of a BatchGetStock request, in its order.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    reject(_skus_violations(request.skus), InvalidRequest)
    return list(request.skus)


def to_page(request: pb.ListStockRequest) -> tuple[str, int]:
    """The SKU after which the page starts (empty for the first page), and the page size.

    Raises:
        InvalidRequest: the page size is out of range.
        InvalidPageToken: this service did not create the token.
    """
    if not 0 <= request.page_size <= MAX_PAGE:
        raise InvalidRequest([FieldViolation("page_size", f"must be 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")])
    after = read_token(request.page_token) if request.page_token else ""
    return after, request.page_size or DEFAULT_PAGE


def to_reservation_request(request: pb.ReserveStockRequest) -> ReservationRequest:
    """The domain form of a ReserveStock request.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    reject(
        [
            *uuid_violations("request_id", request.request_id),
            *uuid_violations("attempt_id", request.attempt_id),
            *_lines_violations(request.lines),
            *_fingerprint_violations("fingerprint", request.fingerprint),
        ],
        InvalidRequest,
    )
    return ReservationRequest(
        request_id=request.request_id.lower(),
        attempt_id=request.attempt_id.lower(),
        lines=tuple(Line(line.sku, line.quantity) for line in request.lines),
        fingerprint=request.fingerprint,
    )


def to_attempt(request: pb.UndoReserveStockRequest) -> tuple[str, str]:
    """The request id and the attempt id of an UndoReserveStock request.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    reject(
        [
            *uuid_violations("request_id", request.request_id),
            *uuid_violations("attempt_id", request.attempt_id),
        ],
        InvalidRequest,
    )
    return request.request_id.lower(), request.attempt_id.lower()


def to_reservation_id(reservation_id: str) -> str:
    """A reservation's id as it is stored.

    Raises:
        UnknownReservation: the id is not a UUID, so no reservation has it.
    """
    if not is_uuid(reservation_id):
        raise UnknownReservation(reservation_id)
    return reservation_id.lower()


def to_reservation_ids(request: pb.BatchGetReservationsRequest) -> list[str]:
    """The ids of a BatchGetReservations request as they are stored, in its order.

    Raises:
        InvalidRequest: there are too few or too many ids, or an id is not a UUID or repeats another one.
    """
    ids = [reservation_id.lower() for reservation_id in request.reservation_ids]
    reject(_reservation_ids_violations(ids), InvalidRequest)
    return ids


def to_expire_time_before(request: pb.PurgeReservationsRequest) -> datetime:
    """The time before which reservations are purged.

    Raises:
        InvalidRequest: the time is missing or out of range.
    """
    if not request.HasField("expire_time_before"):
        raise InvalidRequest([FieldViolation("expire_time_before", "is required")])
    try:
        return request.expire_time_before.ToDatetime(UTC)
    except ValueError:
        raise InvalidRequest([FieldViolation("expire_time_before", "must be a valid timestamp")]) from None


def to_adjustment(request: pb.AdjustStockRequest) -> Adjustment:
    """The domain form of an AdjustStock request.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    reject(
        [
            *uuid_violations("request_id", request.request_id),
            *_sku_violations("sku", request.sku),
            *_delta_violations(request.delta),
        ],
        InvalidRequest,
    )
    return Adjustment(request.request_id.lower(), request.sku, request.delta)


def write_stock(stock: Stock, message: inventory_pb2.Stock) -> None:
    """Writes a stock into its field of a response."""
    message.sku = stock.sku
    message.title = stock.title
    message.category = stock.category
    message.on_hand = stock.on_hand
    message.reserved = stock.reserved
    message.available = stock.available
    message.version = stock.version


def from_reservation(reservation: Reservation) -> inventory_pb2.Reservation:
    """The protobuf message of a reservation."""
    return inventory_pb2.Reservation(
        reservation_id=reservation.reservation_id,
        state=inventory_pb2.Reservation.State.Value(f"STATE_{reservation.state}"),
        lines=[inventory_pb2.ReservationLine(sku=line.sku, quantity=line.quantity) for line in reservation.lines],
        create_time=_timestamp(reservation.create_time),
        expire_time=_timestamp(reservation.expire_time),
        fingerprint=reservation.fingerprint,
    )


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def _skus_violations(skus: Sequence[str]) -> Iterator[FieldViolation]:
    if not 1 <= len(skus) <= MAX_BATCH:
        yield FieldViolation("skus", f"must have 1 to {MAX_BATCH} SKUs, not {len(skus)}")
        return
    for index, sku in enumerate(skus):
        yield from _sku_violations(f"skus[{index}]", sku)


def _reservation_ids_violations(ids: Sequence[str]) -> Iterator[FieldViolation]:
    if not 1 <= len(ids) <= MAX_BATCH:
        yield FieldViolation("reservation_ids", f"must have 1 to {MAX_BATCH} ids, not {len(ids)}")
        return
    seen: set[str] = set()
    for index, id_ in enumerate(ids):
        yield from uuid_violations(f"reservation_ids[{index}]", id_)
        if id_ in seen:
            yield FieldViolation(f"reservation_ids[{index}]", "repeats an earlier id; send each id once")
        seen.add(id_)


def _lines_violations(lines: Sequence[inventory_pb2.ReservationLine]) -> Iterator[FieldViolation]:
    if not 1 <= len(lines) <= MAX_LINES:
        yield FieldViolation("lines", f"must have 1 to {MAX_LINES} lines, not {len(lines)}")
        return
    seen: set[str] = set()
    for index, line in enumerate(lines):
        yield from _sku_violations(f"lines[{index}].sku", line.sku)
        if line.sku in seen:
            yield FieldViolation(f"lines[{index}].sku", "repeats an earlier line; send one line for each SKU")
        seen.add(line.sku)
        if not 1 <= line.quantity <= MAX_QUANTITY:
            yield FieldViolation(f"lines[{index}].quantity", f"must be 1 to {MAX_QUANTITY}")


def _delta_violations(delta: int) -> Iterator[FieldViolation]:
    if not 1 <= abs(delta) <= MAX_QUANTITY:
        yield FieldViolation("delta", f"must be -{MAX_QUANTITY} to {MAX_QUANTITY}, and not 0")
