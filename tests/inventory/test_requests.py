"""Which requests the inventory API accepts and which it rejects."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from aiomesh.inventory.v1 import error_reason_pb2, inventory_pb2
from aiomesh.inventory.v1 import inventory_service_pb2 as pb
from inventory import convert, domain
from inventory.domain import (
    InvalidPageToken,
    InvalidRequest,
    Line,
    Reservation,
    ReservationRequest,
    State,
    UnknownReservation,
)
from inventory.page_token import read_token, write_token
from meshkit.errors import ServiceError

pytestmark = pytest.mark.unit

A_UUID = "0b06b7a1-5b7e-4b53-a0f6-3a8a3b5f0c7e"


def reserve(*lines: tuple[str, int], request_id: str = A_UUID, fingerprint: str = "digest") -> pb.ReserveStockRequest:
    return pb.ReserveStockRequest(
        request_id=request_id,
        attempt_id=A_UUID,
        fingerprint=fingerprint,
        lines=[inventory_pb2.ReservationLine(sku=sku, quantity=quantity) for sku, quantity in lines],
    )


def refused_fields(failure: pytest.ExceptionInfo[InvalidRequest]) -> list[str]:
    return [violation.field for violation in failure.value.violations]


def test_a_request_keeps_the_order_of_its_lines() -> None:
    request = reserve(("TEA-2", 1), ("TEA-1", 1_000_000), request_id=A_UUID.upper())
    assert convert.to_reservation_request(request) == ReservationRequest(
        request_id=A_UUID,
        attempt_id=A_UUID,
        lines=(Line("TEA-2", 1), Line("TEA-1", 1_000_000)),
        fingerprint="digest",
    )


def test_an_error_names_all_invalid_fields_of_a_request() -> None:
    request = reserve(("TEA-1", 0), ("TEA-1", 1), ("", 1_000_001), request_id="no uuid", fingerprint="")
    with pytest.raises(InvalidRequest) as failure:
        convert.to_reservation_request(request)
    assert refused_fields(failure) == [
        "request_id",
        "lines[0].quantity",
        "lines[1].sku",
        "lines[2].sku",
        "lines[2].quantity",
        "fingerprint",
    ]


@pytest.mark.parametrize("count", [0, 101])
def test_a_reservation_has_one_to_a_hundred_lines(count: int) -> None:
    with pytest.raises(InvalidRequest) as failure:
        convert.to_reservation_request(reserve(*((f"TEA-{number}", 1) for number in range(count))))
    assert refused_fields(failure) == ["lines"]


def test_an_error_lists_at_most_thirty_violations() -> None:
    with pytest.raises(InvalidRequest) as failure:
        convert.to_reservation_request(reserve(*(("", 0) for _ in range(100))))
    assert len(failure.value.violations) == 30


@pytest.mark.parametrize("sku", ["", "x" * 65, "TEA\x000001", "TEA\n0001"])
def test_a_sku_is_short_printable_text(sku: str) -> None:
    with pytest.raises(InvalidRequest):
        convert.to_sku(pb.GetStockRequest(sku=sku))
    with pytest.raises(InvalidRequest) as failure:
        convert.to_skus(pb.BatchGetStockRequest(skus=["TEA-0001", sku]))
    assert refused_fields(failure) == ["skus[1]"]


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_one_to_a_hundred_skus(count: int) -> None:
    with pytest.raises(InvalidRequest) as failure:
        convert.to_skus(pb.BatchGetStockRequest(skus=["TEA-0001"] * count))
    assert refused_fields(failure) == ["skus"]


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_one_to_a_hundred_reservations(count: int) -> None:
    with pytest.raises(InvalidRequest) as failure:
        convert.to_reservation_ids(pb.BatchGetReservationsRequest(reservation_ids=(str(uuid4()) for _ in range(count))))
    assert refused_fields(failure) == ["reservation_ids"]


def test_a_batch_has_uuids_each_once_whatever_their_case() -> None:
    ids = [A_UUID.upper(), str(uuid4()), "no uuid", A_UUID]
    with pytest.raises(InvalidRequest) as failure:
        convert.to_reservation_ids(pb.BatchGetReservationsRequest(reservation_ids=ids))
    assert refused_fields(failure) == ["reservation_ids[2]", "reservation_ids[3]"]
    assert convert.to_reservation_ids(pb.BatchGetReservationsRequest(reservation_ids=ids[:2])) == [A_UUID, ids[1]]


@pytest.mark.parametrize(
    "request_",
    [
        pb.PurgeReservationsRequest(),
        pb.PurgeReservationsRequest(expire_time_before=Timestamp(seconds=253402300800)),
        pb.PurgeReservationsRequest(expire_time_before=Timestamp(nanos=-1)),
    ],
)
def test_a_purge_needs_a_valid_time(request_: pb.PurgeReservationsRequest) -> None:
    with pytest.raises(InvalidRequest) as failure:
        convert.to_expire_time_before(request_)
    assert refused_fields(failure) == ["expire_time_before"]


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_purge_takes_any_valid_time(moment: datetime) -> None:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    request = pb.PurgeReservationsRequest(expire_time_before=timestamp)
    assert convert.to_expire_time_before(request) == moment


@pytest.mark.parametrize("delta", [0, 1_000_001, -1_000_001, 2**63 - 1, -(2**63)])
def test_an_adjustment_is_up_to_a_million_units_and_not_zero(delta: int) -> None:
    with pytest.raises(InvalidRequest) as failure:
        convert.to_adjustment(pb.AdjustStockRequest(request_id=A_UUID, sku="TEA-0001", delta=delta))
    assert refused_fields(failure) == ["delta"]


@pytest.mark.parametrize("size", [-1, 101, -(2**31)])
def test_a_page_has_one_to_a_hundred_stocks(size: int) -> None:
    with pytest.raises(InvalidRequest) as failure:
        convert.to_page(pb.ListStockRequest(page_size=size))
    assert refused_fields(failure) == ["page_size"]


def test_the_default_page_size_is_fifty_stocks() -> None:
    assert convert.to_page(pb.ListStockRequest()) == ("", 50)


@pytest.mark.parametrize(
    "text", ["", "x", A_UUID + " ", A_UUID.replace("-", ""), "{" + A_UUID + "}", "urn:uuid:" + A_UUID]
)
def test_an_id_that_is_not_a_uuid_is_an_unknown_reservation(text: str) -> None:
    with pytest.raises(UnknownReservation):
        convert.to_reservation_id(text)
    with pytest.raises(InvalidRequest) as failure:
        convert.to_attempt(pb.UndoReserveStockRequest(request_id=text, attempt_id=text))
    assert refused_fields(failure) == ["request_id", "attempt_id"]


def test_ids_ignore_case() -> None:
    assert convert.to_reservation_id(A_UUID.upper()) == A_UUID


def test_an_error_shortens_a_long_id() -> None:
    assert len(UnknownReservation("x" * 100_000).message) < 100


@given(st.uuids(), st.sampled_from(State), st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 2)))  # noqa: DTZ001
def test_a_reservation_is_converted_with_its_state_and_times(
    reservation_id: UUID, state: State, moment: datetime
) -> None:
    reservation = Reservation(
        str(reservation_id), "digest", state, (Line("TEA-1", 2), Line("CUP-1", 1)), moment, moment
    )
    message = convert.from_reservation(reservation)
    assert message.reservation_id == str(reservation_id)
    assert inventory_pb2.Reservation.State.Name(message.state) == f"STATE_{state}"
    assert [(line.sku, line.quantity) for line in message.lines] == [("TEA-1", 2), ("CUP-1", 1)]
    assert message.expire_time.ToDatetime(UTC) == moment


@given(st.text(min_size=1, max_size=64).filter(str.isprintable))
def test_a_page_token_is_url_safe_and_decodes_to_its_sku(sku: str) -> None:
    token = write_token(sku)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert read_token(token) == sku


@given(st.text(max_size=80))
@example("TEA-0001")
@example("AQ")
@example(write_token("TEA-0001") + "=")
@example(" " + write_token("TEA-0001"))
@example(write_token(""))
@example(write_token("TEA\0"))
@example("A" * 1_000_000)
def test_text_that_is_not_a_token_is_rejected(text: str) -> None:
    with pytest.raises(InvalidPageToken):
        convert.to_page(pb.ListStockRequest(page_token=text or " "))


@given(st.integers(0, 16), st.characters(codec="ascii"))
def test_a_token_with_one_changed_character_is_rejected(at: int, other: str) -> None:
    token = write_token("TEA-0001")
    changed = token[:at] + other + token[at + 1 :]
    if changed != token:
        with pytest.raises(InvalidPageToken):
            read_token(changed)


def test_each_error_has_the_reason_in_the_proto() -> None:
    errors = {
        error.reason
        for error in vars(domain).values()
        if isinstance(error, type) and issubclass(error, ServiceError) and error.domain == domain.DOMAIN
    }
    values = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    contract = {name.removeprefix("ERROR_REASON_") for name in values}
    assert errors == contract - {"UNSPECIFIED"}


def test_generated_uuids_are_accepted() -> None:
    made = str(uuid4())
    assert convert.to_reservation_id(made) == made
