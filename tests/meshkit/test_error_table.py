"""Every row of the error table, over a real call: kind → gRPC status → kind, and its HTTP status."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from meshkit import errors
from meshkit.client.channel import open_channel
from meshkit.errors import FieldViolation, ServiceError, describe, mapping_of
from meshkit.status import OF_SERVICES, read_error, service_errors, write_status
from meshkit.testing import SpanCapture
from tests.meshkit.echo import SERVICE, echo

TABLE = [
    (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT, 400),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, 401),
    (errors.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED, 403),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND, 404),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS, 409),
    (errors.Conflict, grpc.StatusCode.ABORTED, 409),
    (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION, 409),
    (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    (errors.Cancelled, grpc.StatusCode.CANCELLED, 499),
    (errors.Unimplemented, grpc.StatusCode.UNIMPLEMENTED, 501),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE, 503),
    (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    (errors.Internal, grpc.StatusCode.INTERNAL, 500),
    (errors.Unknown, grpc.StatusCode.UNKNOWN, 500),
]


class TeapotIsShort(errors.FailedPrecondition, domain="tea.example"):
    def __init__(self, millilitres: int) -> None:
        super().__init__(
            f"only {millilitres} ml left",
            violations=[FieldViolation("cups[1].size", "too large")],
            retry_after=1.5,
            millilitres=millilitres,
        )


async def failure_of(error: BaseException) -> grpc.aio.AioRpcError:
    async def handler(request: bytes, context: object) -> bytes:
        raise error

    async with echo(UnaryUnary=handler) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.unary()
    return caught.value


def test_the_table_has_exactly_these_rows() -> None:
    assert [(row.kind, grpc.StatusCode[row.code], row.http) for row in errors.TABLE] == TABLE


@pytest.mark.parametrize(("kind", "code", "http"), TABLE, ids=[code.name for _, code, _ in TABLE])
async def test_a_kind_crosses_the_wire_and_comes_back(
    kind: type[ServiceError], code: grpc.StatusCode, http: int
) -> None:
    failure = await failure_of(kind("what happened"))

    assert (failure.code(), failure.details()) == (code, "what happened")
    with pytest.raises(kind) as caught, service_errors():
        raise failure
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.reason) == ("what happened", kind.reason)
    assert mapping_of(caught.value).http == http


async def test_a_domain_error_keeps_reason_domain_fields_violations_and_delay() -> None:
    failure = await failure_of(TeapotIsShort(40))

    with pytest.raises(errors.FailedPrecondition) as caught, service_errors():
        raise failure
    error = caught.value
    assert (error.reason, error.domain, error.fields) == ("TEAPOT_IS_SHORT", "tea.example", {"millilitres": "40"})
    assert error.violations == (FieldViolation("cups[1].size", "too large"),)
    assert error.retry_after == 1.5


async def test_the_trailing_metadata_that_a_handler_has_set_arrive_with_its_error() -> None:
    async def handler(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        context.set_trailing_metadata((("left", "one cup"),))
        raise TeapotIsShort(120)

    async with echo(UnaryUnary=handler) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.unary()
    assert caught.value.trailing_metadata()["left"] == "one cup"
    assert read_error(caught.value).reason == "TEAPOT_IS_SHORT"


async def test_an_unexpected_exception_is_logged_and_hidden_from_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failure = await failure_of(KeyError("secret"))

    assert (failure.code(), failure.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    status = rpc_status.from_call(failure)  # type: ignore[arg-type]
    assert b"secret" not in status.SerializeToString()
    assert "secret" in caplog.text
    assert "Traceback" in caplog.text


async def test_the_cause_of_a_failure_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = errors.Unavailable("the database cannot serve now")
    error.__cause__ = OSError("(driver) disk is full")
    error.__cause__.__cause__ = OSError("disk is full")
    failure = await failure_of(error)

    assert failure.details() == "the database cannot serve now"
    lines = [record.getMessage() for record in caplog.records if record.name == "meshkit.server"]
    assert lines == ["test.Echo/UnaryUnary failed: the database cannot serve now ((driver) disk is full)"]


async def test_an_invalid_request_is_not_logged_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    error = errors.InvalidArgument("no page token")
    error.__cause__ = ValueError("padding")
    await failure_of(error)

    assert not [record for record in caplog.records if record.name == "meshkit.server"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.OUT_OF_RANGE, errors.InvalidArgument),
        (grpc.StatusCode.DATA_LOSS, errors.Internal),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
    ],
)
async def test_a_foreign_status_becomes_the_nearest_kind(code: grpc.StatusCode, kind: type[ServiceError]) -> None:
    async def handler(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(code, "from elsewhere")
        raise AssertionError

    async with echo(UnaryUnary=handler) as service:
        with pytest.raises(kind) as caught, service_errors():
            await service.unary()
    assert "from elsewhere" in describe(caught.value)


def details_with_delay(seconds: int) -> bytes:
    status = status_pb2.Status(code=14, message="x")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)))
    encoded: bytes = status.SerializeToString()
    return encoded


BROKEN = [
    pytest.param(b"\xff\xff\xff", id="no Status"),
    pytest.param(b"\x08\x0e\x12\x7fx", id="cut off"),
    pytest.param(
        status_pb2.Status(
            code=14,
            message="x",
            details=[any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")],
        ).SerializeToString(),
        id="broken ErrorInfo",
    ),
    *(
        pytest.param(details_with_delay(seconds), id=f"a delay of {seconds} seconds")
        for seconds in (-(2**62), -1, 2**40, 2**62)
    ),
]


@pytest.mark.parametrize("details", BROKEN)
async def test_a_code_is_believed_whatever_its_details_are(details: bytes) -> None:
    async def handler(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        trailing = (("grpc-status-details-bin", details),)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "x", trailing_metadata=trailing)
        raise AssertionError

    async with echo(UnaryUnary=handler) as service:
        with pytest.raises(errors.Unavailable) as caught, service_errors():
            await service.unary()
    assert (caught.value.reason, caught.value.domain, caught.value.fields) == ("UNAVAILABLE", "", {})
    assert caught.value.retry_after is None


async def test_an_unreachable_peer_is_unavailable() -> None:
    async with echo() as service:
        address = service.address
    async with echo() as service, grpc.aio.insecure_channel(address) as channel:
        lost = replace(service, channel=channel)
        with pytest.raises(errors.Unavailable), service_errors():
            await lost.unary()


@pytest.mark.parametrize("target", ["127.0.0.1:{port}", "dns:///shop.invalid:{port}"])
async def test_only_the_log_and_the_span_name_the_address_of_an_unreachable_peer(target: str) -> None:
    async with echo() as service:
        port = service.address.rpartition(":")[2]
    capture, address = SpanCapture("client"), target.format(port=port)
    host = address.rpartition("/")[2].rpartition(":")[0]
    async with open_channel(address, service=SERVICE, repeatable=(), limit=5, telemetry=capture.telemetry) as channel:
        with pytest.raises(errors.Unavailable) as caught, service_errors():
            await replace(service, channel=channel).unary()

    read_by_callers = f"{caught.value} {caught.value.message} {write_status(caught.value)}"
    assert "a call to another service failed: UNAVAILABLE" in read_by_callers
    assert not [part for part in (host, port, "ipv4") if part in read_by_callers]
    assert host in describe(caught.value)
    assert host in (capture.spans()[0].status.description or "")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_the_text_of_a_status_that_grpc_itself_may_create_is_only_in_the_log(code: grpc.StatusCode) -> None:
    failure = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "at 10.1.2.3")

    error = read_error(failure)

    assert "10.1.2.3" in describe(error)
    assert ("10.1.2.3" in error.message) is (code.name in OF_SERVICES)
