"""Writes a ServiceError as google.rpc.Status and reads it back (AIP-193).

The status travels in the trailing metadata `grpc-status-details-bin`; the call has the same code and message.
Details: ErrorInfo always, BadRequest for violations, RetryInfo for `retry_after`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from meshkit.errors import Cancelled, FieldViolation, ServiceError, Unavailable, mapping_of, mapping_of_code

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any
    from google.protobuf.message import Message


def write_status(error: ServiceError) -> status_pb2.Status:
    """The google.rpc.Status of an error."""
    status = status_pb2.Status(code=code_pb2.Code.Value(mapping_of(error).code), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain, metadata=error.fields)
    status.details.add().Pack(info)
    if error.violations:
        status.details.add().Pack(_bad_request(error))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


OF_SERVICES = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "DATA_LOSS",
}
"""The codes that gRPC itself never makes (https://grpc.io/docs/guides/status-codes/): their text is a service's own."""


LONGEST_DELAY = 24 * 60 * 60
"""The longest delay, in seconds, that the caller is told to wait; others, like negative ones, are ignored."""


def read_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """The ServiceError of a failed call, from its details, or from its code if it has none.

    With a bare code the text may be gRPC's own, which names addresses and hosts. Then it is a note of the error, for
    logs and tracebacks, and the error's message names the code only.

    Details that cannot be parsed, or that contradict the code, are ignored.

    A bare CANCELLED is Unavailable: a server that stops cancels the calls that it has not begun. (The caller's own
    cancellation is no AioRpcError.)
    """
    code, text = error.code().name, error.details() or ""
    kind = mapping_of_code(code).kind
    if status := _status(error):
        found = _read_details(kind, text or code, status)
    elif text and code in OF_SERVICES:
        found = kind(text)
    else:
        found = (Unavailable if kind is Cancelled else kind)(f"a call to another service failed: {code}")
    found.add_note(code if text in found.message else text)
    return found


def call_failure(error: ServiceError) -> grpc.aio.AioRpcError:
    """The failure of a call that bears this error: `read_error` returns it again."""
    status = rpc_status.to_status(write_status(error))
    trailing = grpc.aio.Metadata(*status.trailing_metadata)
    return grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailing, status.details)


class service_errors:  # noqa: N801 - as contextlib's, which costs three times as much
    """Turns an AioRpcError raised in the block into its ServiceError."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, grpc.aio.AioRpcError):
            raise read_error(error) from error


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(cast("grpc.Call", error))  # it has the same accessors
    except (ValueError, DecodeError):
        return None


def _unpack(detail: Any, target: Message) -> None:
    """Reads a detail of the target's type into it, and leaves the target empty if the detail cannot be parsed."""
    try:
        detail.Unpack(target)
    except DecodeError:
        target.Clear()


def _bad_request(error: ServiceError) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
    )


def _read_details(kind: type[ServiceError], message: str, status: status_pb2.Status) -> ServiceError:
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for target in (info, bad_request, retry):
            _unpack(detail, target)
    violations = [FieldViolation(item.field, item.description) for item in bad_request.field_violations]
    error = kind(message, violations=violations)
    error.fields = dict(info.metadata)
    error.reason = info.reason or error.reason
    error.domain = info.domain
    if retry.HasField("retry_delay") and 0 <= retry.retry_delay.seconds <= LONGEST_DELAY:
        error.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return error
