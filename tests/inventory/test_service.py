"""The inventory service over real gRPC, as other services call it."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections import Counter
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import func, select

from aiomesh.inventory.v1 import inventory_pb2
from aiomesh.inventory.v1 import inventory_service_pb2 as pb
from aiomesh.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from inventory.app import INVENTORY, build
from inventory.settings import Settings
from inventory.tables import reservation_lines, stock
from meshkit.client.channel import open_channel
from meshkit.errors import DeadlineExceeded, ServiceError, mapping_of
from meshkit.status import service_errors
from meshkit.testing import FakeClock, SpanCapture, start_server
from tests.inventory.opened import HOLD, PATIENCE, prepare_database
from tests.open_spans import OpenSpans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from aiomesh.inventory.v1.inventory_service_pb2_grpc import InventoryServiceAsyncStub
    from meshkit.service import GrpcApp
    from tests.databases import Seeded

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]  # the first one starts PostgreSQL

FOREIGN = "x"
NOT_SAMPLED = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-00"),)
State = inventory_pb2.Reservation.State


@dataclass(frozen=True)
class Inventory:
    """The running service: its stub, the service itself, its clock, and its ended and open spans."""

    address: str
    stub: InventoryServiceAsyncStub
    app: GrpcApp
    clock: FakeClock
    capture: SpanCapture
    open_spans: OpenSpans

    async def stock(self, sku: str = "TEA-0001") -> inventory_pb2.Stock:
        return (await self.stub.GetStock(pb.GetStockRequest(sku=sku))).stock


@asynccontextmanager
async def start_service(database_url: str) -> AsyncIterator[Inventory]:
    """The service on a database that is not prepared yet."""
    capture, clock, open_spans = SpanCapture("inventory"), FakeClock(), OpenSpans()
    capture.telemetry.tracer_provider.add_span_processor(open_spans)
    settings = Settings(database_url=database_url)
    async with (
        build(settings, capture.telemetry, clock=clock) as app,
        start_server(app.server) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Inventory(address, InventoryServiceStub(channel), app, clock, capture, open_spans)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_service(shared_url: str) -> AsyncIterator[Inventory]:
    async with start_service(shared_url) as inventory:
        await inventory.app.check()
        yield inventory


@pytest_asyncio.fixture(loop_scope="module")
async def inventory(shared_service: Inventory, seeded: Seeded) -> Inventory:
    """The shared service as after its start, on the database as its seeds left it."""
    await shared_service.open_spans.until_ended()
    await seeded.restore()
    shared_service.capture.exporter.clear()
    shared_service.clock.now = FakeClock().now
    return shared_service


def new_id() -> str:
    return str(uuid.uuid4())


def reserve(*lines: tuple[str, int], fingerprint: str = "digest") -> pb.ReserveStockRequest:
    return pb.ReserveStockRequest(
        request_id=new_id(),
        attempt_id=new_id(),
        lines=[inventory_pb2.ReservationLine(sku=sku, quantity=quantity) for sku, quantity in lines],
        fingerprint=fingerprint,
    )


async def refusal(call: Awaitable[object]) -> ServiceError:
    with pytest.raises(ServiceError) as failure, service_errors():
        await call
    return failure.value


async def outcome(stub: InventoryServiceAsyncStub, request: pb.ReserveStockRequest) -> str:
    """The outcome of a reservation that is repeated while the database is busy, or a slow machine exceeds a limit."""
    while True:
        try:
            with service_errors():
                await stub.ReserveStock(request, timeout=PATIENCE)
        except ServiceError as error:
            if not error.retry_after and not isinstance(error, DeadlineExceeded):
                return error.reason
        else:
            return "RESERVED"


async def test_a_stock_includes_the_available_units(inventory: Inventory) -> None:
    await inventory.stub.ReserveStock(reserve(("TEA-0001", 5)))
    assert await inventory.stock() == inventory_pb2.Stock(
        sku="TEA-0001",
        title="Darjeeling First Flush Margaret's Hope, 100 g",
        category="tea",
        on_hand=500,
        reserved=5,
        available=495,
        version=2,
    )


async def test_a_batch_keeps_the_order_of_the_request_and_lists_each_missing_sku_once(inventory: Inventory) -> None:
    skus = ["TEA-0002", "NO-SUCH", "TEA-0001", "TEA-0002", "NO-SUCH"]
    answer = await inventory.stub.BatchGetStock(pb.BatchGetStockRequest(skus=skus))
    assert [found.sku for found in answer.stocks] == ["TEA-0002", "TEA-0001", "TEA-0002"]
    assert list(answer.missing_skus) == ["NO-SUCH"]
    assert len(inventory.capture.spans("SELECT stock")) == 1, "a batch is one query"


async def test_the_pages_of_the_catalogue_end_with_an_empty_token(inventory: Inventory) -> None:
    skus, token, sizes = [], "", []
    while True:
        page = await inventory.stub.ListStock(pb.ListStockRequest(page_size=100, page_token=token))
        skus += [found.sku for found in page.stocks]
        sizes.append(len(page.stocks))
        token = page.next_page_token
        if not token:
            break
    assert skus == sorted(set(skus))
    assert sizes[:2] == [100, 100]
    first = await inventory.stub.ListStock(pb.ListStockRequest())
    assert [found.sku for found in first.stocks] == skus[:50]


async def test_a_reservation_is_committed(inventory: Inventory) -> None:
    request = reserve(("TEA-0002", 1), ("TEA-0001", 2))
    made = (await inventory.stub.ReserveStock(request)).reservation
    assert made.reservation_id == request.request_id
    assert made.state == State.STATE_RESERVED
    assert made.lines == request.lines
    assert made.expire_time.ToDatetime() - made.create_time.ToDatetime() == HOLD
    named = pb.CommitReservationRequest(reservation_id=request.request_id.upper())
    committed = (await inventory.stub.CommitReservation(named)).reservation
    assert committed == (await inventory.stub.CommitReservation(named)).reservation
    assert committed.state == State.STATE_COMMITTED
    read = await inventory.stub.GetReservation(pb.GetReservationRequest(reservation_id=request.request_id))
    assert read.reservation == committed
    assert (await inventory.stock()).on_hand == 498


async def test_a_reservation_is_released_or_undone(inventory: Inventory) -> None:
    released, undone = reserve(("TEA-0001", 2)), reserve(("TEA-0001", 3))
    for request in (released, undone):
        await inventory.stub.ReserveStock(request)
    named = pb.ReleaseReservationRequest(reservation_id=released.request_id)
    assert (await inventory.stub.ReleaseReservation(named)).reservation.state == State.STATE_RELEASED
    attempt = pb.UndoReserveStockRequest(request_id=undone.request_id, attempt_id=undone.attempt_id)
    assert (await inventory.stub.UndoReserveStock(attempt)).undone
    assert not (await inventory.stub.UndoReserveStock(attempt)).undone
    assert (await inventory.stock()).available == 500


async def test_a_batch_of_reservations_keeps_the_order_and_lists_the_missing_ones(inventory: Inventory) -> None:
    stub, unknown = inventory.stub, [new_id(), new_id()]
    overdue, committed = reserve(("TEA-0002", 1), ("TEA-0001", 2)), reserve(("TEA-0001", 1))
    await stub.ReserveStock(overdue)
    await stub.ReserveStock(committed)
    await stub.CommitReservation(pb.CommitReservationRequest(reservation_id=committed.request_id))
    inventory.clock.advance(HOLD)
    inventory.capture.exporter.clear()
    ids = [committed.request_id, unknown[0], overdue.request_id.upper(), unknown[1]]
    batch = await stub.BatchGetReservations(pb.BatchGetReservationsRequest(reservation_ids=ids))
    (server,) = await spans_named(inventory, f"{INVENTORY.name}/BatchGetReservations")
    statements = [span for span in inventory.capture.spans() if span is not server]
    assert [span.name.split()[0] for span in statements] == ["SELECT"], "a batch is one query"
    assert list(batch.missing_reservation_ids) == unknown
    assert [(found.reservation_id, found.state) for found in batch.reservations] == [
        (committed.request_id, State.STATE_COMMITTED),
        (overdue.request_id, State.STATE_EXPIRED),
    ]
    for found in batch.reservations:
        one = await stub.GetReservation(pb.GetReservationRequest(reservation_id=found.reservation_id))
        assert found == one.reservation


async def test_a_purge_deletes_old_reservations_and_begins_a_trace_of_its_own(inventory: Inventory) -> None:
    stub, request = inventory.stub, reserve(("TEA-0001", 2))
    made = (await stub.ReserveStock(request)).reservation
    await stub.ReleaseReservation(pb.ReleaseReservationRequest(reservation_id=request.request_id))
    inventory.capture.exporter.clear()
    kept = pb.PurgeReservationsRequest(expire_time_before=made.expire_time)
    later = Timestamp(seconds=made.expire_time.seconds + 1)
    purge = pb.PurgeReservationsRequest(expire_time_before=later)
    counts = [(await stub.PurgeReservations(call, metadata=NOT_SAMPLED)).deleted_count for call in (kept, purge, purge)]
    assert counts == [0, 1, 0]
    (span,) = inventory.capture.spans("purge reservations")
    assert span.parent is None
    assert span.attributes == {"inventory.purged_reservations": 1}
    assert [other.name for other in inventory.capture.spans() if other is not span] == ["DELETE reservations"]
    error = await refusal(stub.GetReservation(pb.GetReservationRequest(reservation_id=request.request_id)))
    assert error.reason == "UNKNOWN_RESERVATION"
    request.fingerprint = "other"
    assert (await stub.ReserveStock(request)).reservation.state == State.STATE_RESERVED


async def test_an_adjustment_returns_the_current_stock(inventory: Inventory) -> None:
    request = pb.AdjustStockRequest(request_id=new_id(), sku="TEA-0001", delta=7)
    assert (await inventory.stub.AdjustStock(request)).stock.on_hand == 507
    await inventory.stub.AdjustStock(pb.AdjustStockRequest(request_id=new_id(), sku="TEA-0001", delta=-1))
    assert (await inventory.stub.AdjustStock(request)).stock.on_hand == 506


async def test_each_error_has_its_code_reason_and_fields(inventory: Inventory) -> None:
    stub, gone, kept = inventory.stub, new_id(), reserve(("TEA-0001", 5))
    await stub.ReserveStock(kept)
    released, committed, expired = reserve(("TEA-0001", 1)), reserve(("TEA-0001", 1)), reserve(("TEA-0001", 1))
    await stub.ReserveStock(released)
    await stub.ReserveStock(committed)
    await stub.ReleaseReservation(pb.ReleaseReservationRequest(reservation_id=released.request_id))
    await stub.CommitReservation(pb.CommitReservationRequest(reservation_id=committed.request_id))
    calls: list[tuple[Awaitable[object], str, str, dict[str, str]]] = [
        (stub.GetStock(pb.GetStockRequest(sku="NO-SUCH")), "NOT_FOUND", "UNKNOWN_SKU", {"sku": "NO-SUCH"}),
        (stub.GetStock(pb.GetStockRequest()), "INVALID_ARGUMENT", "INVALID_REQUEST", {}),
        (stub.BatchGetReservations(pb.BatchGetReservationsRequest()), "INVALID_ARGUMENT", "INVALID_REQUEST", {}),
        (stub.PurgeReservations(pb.PurgeReservationsRequest()), "INVALID_ARGUMENT", "INVALID_REQUEST", {}),
        (stub.ListStock(pb.ListStockRequest(page_token=FOREIGN)), "INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", {}),
        (
            stub.ReserveStock(reserve(("TEA-0002", 61))),
            "FAILED_PRECONDITION",
            "INSUFFICIENT_STOCK",
            {"sku": "TEA-0002", "requested": "61", "available": "60"},
        ),
        (
            stub.ReserveStock(
                pb.ReserveStockRequest(
                    request_id=kept.request_id, attempt_id=new_id(), lines=kept.lines, fingerprint="other"
                )
            ),
            "ALREADY_EXISTS",
            "REQUEST_ID_REUSED",
            {"request_id": kept.request_id},
        ),
        (
            stub.GetReservation(pb.GetReservationRequest(reservation_id="no uuid")),
            "NOT_FOUND",
            "UNKNOWN_RESERVATION",
            {"reservation_id": "no uuid"},
        ),
        (
            stub.CommitReservation(pb.CommitReservationRequest(reservation_id=gone)),
            "NOT_FOUND",
            "UNKNOWN_RESERVATION",
            {"reservation_id": gone},
        ),
        (
            stub.CommitReservation(pb.CommitReservationRequest(reservation_id=released.request_id)),
            "FAILED_PRECONDITION",
            "RESERVATION_RELEASED",
            {"reservation_id": released.request_id},
        ),
        (
            stub.ReleaseReservation(pb.ReleaseReservationRequest(reservation_id=committed.request_id)),
            "FAILED_PRECONDITION",
            "RESERVATION_COMMITTED",
            {"reservation_id": committed.request_id},
        ),
        (
            stub.AdjustStock(pb.AdjustStockRequest(request_id=new_id(), sku="TEA-0001", delta=-495)),
            "FAILED_PRECONDITION",
            "ADJUSTMENT_BELOW_RESERVED",
            {"sku": "TEA-0001", "on_hand": "499", "reserved": "5", "delta": "-495"},
        ),
    ]
    for call, code, reason, fields in calls:
        error = await refusal(call)
        actual = (mapping_of(error).code, error.reason, error.domain, error.fields)
        assert actual == (code, reason, "inventory.aiomesh", fields)
    await stub.ReserveStock(expired)
    inventory.clock.advance(HOLD)
    error = await refusal(stub.CommitReservation(pb.CommitReservationRequest(reservation_id=expired.request_id)))
    assert (mapping_of(error).code, error.reason) == ("FAILED_PRECONDITION", "RESERVATION_EXPIRED")


async def test_an_error_names_all_invalid_fields_by_their_paths(inventory: Inventory) -> None:
    error = await refusal(inventory.stub.ReserveStock(reserve(("", 0), ("TEA-0001", 1_000_001), fingerprint="")))
    assert [violation.field for violation in error.violations] == [
        "lines[0].sku",
        "lines[0].quantity",
        "lines[1].quantity",
        "fingerprint",
    ]


@pytest.mark.timeout(120)
async def test_two_hundred_concurrent_reservations_of_the_last_fifty_units_give_fifty(inventory: Inventory) -> None:
    await inventory.stub.AdjustStock(pb.AdjustStockRequest(request_id=new_id(), sku="TEA-0001", delta=-450))
    telemetry, no_health_checks = SpanCapture("callers").telemetry, [("grpc.service_config", "{}")]
    async with open_channel(
        inventory.address,
        service=INVENTORY.name,
        repeatable=(),
        limit=60,
        telemetry=telemetry,
        options=no_health_checks,
    ) as channel:
        stub = InventoryServiceStub(channel)
        outcomes = await asyncio.gather(*(outcome(stub, reserve(("TEA-0001", 1))) for _ in range(200)))
    assert Counter(outcomes) == {"RESERVED": 50, "INSUFFICIENT_STOCK": 150}
    left = await inventory.stock()
    assert (left.on_hand, left.reserved, left.available) == (50, 50, 0)


async def test_calls_before_the_database_is_prepared_are_unavailable_with_retry_info(database_url: str) -> None:
    async with start_service(database_url) as inventory:
        error = await refusal(inventory.stock())
        assert (mapping_of(error).code, error.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        assert error.retry_after == 1.0
        await inventory.app.check()
        assert (await inventory.stock()).on_hand == 500


async def test_a_call_does_not_wait_for_a_locked_database_beyond_its_deadline(tmp_path: Path) -> None:
    path = tmp_path / "locked.db"
    async with start_service(f"sqlite:///{path}") as inventory:
        await inventory.app.check()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            request = reserve(("TEA-0001", 1))
            error = await refusal(inventory.stub.ReserveStock(request, timeout=0.2))
            assert mapping_of(error).code == "DEADLINE_EXCEEDED"
            (server,) = await spans_named(inventory, f"{INVENTORY.name}/ReserveStock")
            assert server.attributes
            assert server.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
            other.execute("ROLLBACK")
        assert (await inventory.stub.ReserveStock(request)).reservation.state == State.STATE_RESERVED
        assert (await inventory.stock()).reserved == 1, "a request that waited too long reserves nothing"


async def test_a_reservation_of_a_disconnected_client_is_complete_or_absent(database_url: str) -> None:
    requests = [reserve(("TEA-0001", 1), ("TEA-0004", 1)) for _ in range(40)]
    lines = select(reservation_lines.c.sku, func.sum(reservation_lines.c.quantity).label("held"))
    by_sku = lines.group_by(reservation_lines.c.sku).subquery()
    async with start_service(database_url) as inventory, prepare_database(database_url, inventory.capture) as database:
        await inventory.app.check()
        calls = [inventory.stub.ReserveStock(request) for request in requests]
        await calls[0]
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        async with database.read() as connection:  # while the last ones are still being made
            books = (await connection.execute(select(stock.c.reserved, by_sku.c.held).join(by_sku))).all()
    assert len(books) == 2
    assert len({units for book in books for units in book}) == 1


async def test_the_trace_of_a_reservation_includes_its_sql_statements(inventory: Inventory) -> None:
    await inventory.stub.ReserveStock(reserve(("TEA-0001", 1)))
    (server,) = await spans_named(inventory, f"{INVENTORY.name}/ReserveStock")
    statements = [span for span in inventory.capture.spans() if span is not server]
    assert {span.parent.span_id for span in statements if span.parent} == {server.context.span_id}
    assert [span.name.split()[0] for span in statements] == [
        "BEGIN",
        "INSERT",
        "SELECT",
        "UPDATE",
        "INSERT",
        "INSERT",
        "COMMIT",
    ]


async def spans_named(inventory: Inventory, name: str) -> list[ReadableSpan]:
    """The spans of this name; a server span may end shortly after the client has the response."""
    while not inventory.capture.spans(name):
        await asyncio.sleep(0)
    return inventory.capture.spans(name)
