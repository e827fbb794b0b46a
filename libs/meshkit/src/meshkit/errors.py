"""The kinds of errors that cross gRPC intact, and the one table that gives each its status codes.

A domain error is a class named for the fact; it subclasses a kind and names its API's error domain:

    class InsufficientStock(FailedPrecondition, domain="inventory.aiomesh"):
        def __init__(self, sku: str, requested: int, available: int) -> None:
            super().__init__(f"{sku}: {requested} requested, {available} available",
                             sku=sku, requested=requested, available=available)

Deep code raises it and knows nothing of gRPC or HTTP. `meshkit.status` carries it over the wire as
google.rpc.Status (AIP-193), and the caller gets the same kind back with the same reason, domain and fields.

    ServiceError
    ├── InvalidArgument      ├── AlreadyExists       ├── Unimplemented
    ├── Unauthenticated      ├── Conflict            ├── Unavailable
    ├── PermissionDenied     ├── FailedPrecondition  ├── DeadlineExceeded
    ├── NotFound             ├── ResourceExhausted   ├── Internal
    └── Cancelled            └── Unknown
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


RETRY_AFTER = 1.0
"""Seconds to wait before a retry, by default. Channels reconnect to a lost backend once a second."""


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that is wrong: its path, such as `lines[0].sku`, and why."""

    field: str
    description: str


class ServiceError(Exception):
    """An error that a caller may branch on.

    Its text is for callers. What only operators may know, such as an address, is a note of it (PEP 678) or its cause.

    Attributes:
        reason: UPPER_SNAKE, from the class's name; the value of the API's ErrorReason enum without its prefix.
        domain: whose reason it is, such as `inventory.aiomesh`; empty for errors of the transport.
        fields: everything that varies in the message, as text (AIP-193).
        violations: the request's wrong fields, for INVALID_ARGUMENT.
        retry_after: seconds to wait before another try, where that is known.
    """

    reason: str
    domain: str = ""

    def __init_subclass__(cls, *, domain: str | None = None) -> None:
        """Derives the reason from the class's name."""
        cls.reason = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()
        if domain is not None:
            cls.domain = domain

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        **fields: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.fields = {name: str(value) for name, value in fields.items()}


class InvalidArgument(ServiceError):
    """The request is invalid in every state of the system."""


class Unauthenticated(ServiceError):
    """The caller has not authenticated, or its credentials are invalid."""


class PermissionDenied(ServiceError):
    """The caller may not do this."""


class NotFound(ServiceError):
    """The resource that the request names does not exist."""


class AlreadyExists(ServiceError):
    """The resource to create exists already, with other content."""


class Conflict(ServiceError):
    """A concurrent change came first; read again, then retry."""


class FailedPrecondition(ServiceError):
    """The state of the system does not allow the request; retry after the state has changed."""


class ResourceExhausted(ServiceError):
    """A limit is reached; retry after `retry_after`."""


class Cancelled(ServiceError):
    """The caller cancelled the request or disconnected."""


class Unimplemented(ServiceError):
    """The server has no such method."""


class Unavailable(ServiceError):
    """The server cannot be reached or cannot serve now; a safe call may be retried."""


class DeadlineExceeded(ServiceError):
    """The caller's deadline has passed."""


class Internal(ServiceError):
    """A bug or broken data. Its message says nothing to callers; the log has the exception."""


class Unknown(ServiceError):
    """A peer failed and gave no reason."""


@dataclass(frozen=True)
class ErrorMapping:
    """One row of the table: a kind, its gRPC status code by name and its HTTP status.

    `code` is a name of google.rpc.Code; `http` follows the mapping in its comments, but for
    FAILED_PRECONDITION, which is 409 as it concerns the state of a resource and not the request.
    """

    kind: type[ServiceError]
    code: str
    http: int


TABLE: tuple[ErrorMapping, ...] = (
    ErrorMapping(InvalidArgument, "INVALID_ARGUMENT", 400),
    ErrorMapping(Unauthenticated, "UNAUTHENTICATED", 401),
    ErrorMapping(PermissionDenied, "PERMISSION_DENIED", 403),
    ErrorMapping(NotFound, "NOT_FOUND", 404),
    ErrorMapping(AlreadyExists, "ALREADY_EXISTS", 409),
    ErrorMapping(Conflict, "ABORTED", 409),
    ErrorMapping(FailedPrecondition, "FAILED_PRECONDITION", 409),
    ErrorMapping(ResourceExhausted, "RESOURCE_EXHAUSTED", 429),
    ErrorMapping(Cancelled, "CANCELLED", 499),
    ErrorMapping(Unimplemented, "UNIMPLEMENTED", 501),
    ErrorMapping(Unavailable, "UNAVAILABLE", 503),
    ErrorMapping(DeadlineExceeded, "DEADLINE_EXCEEDED", 504),
    ErrorMapping(Internal, "INTERNAL", 500),
    ErrorMapping(Unknown, "UNKNOWN", 500),
)

_BY_KIND = {row.kind: row for row in TABLE}
_BY_CODE = {row.code: row for row in TABLE} | {
    "OUT_OF_RANGE": _BY_KIND[InvalidArgument],
    "DATA_LOSS": _BY_KIND[Internal],
}


def mapping_of(error: ServiceError | type[ServiceError]) -> ErrorMapping:
    """The table's row for an error or its class: that of its nearest kind."""
    cls = error if isinstance(error, type) else type(error)
    return next(_BY_KIND[base] for base in cls.__mro__ if base in _BY_KIND)


def mapping_of_code(code: str) -> ErrorMapping:
    """The table's row for a gRPC status code by name; codes that no kind sends come back as the nearest one."""
    return _BY_CODE.get(code, _BY_KIND[Unknown])


def retry_delay(error: ServiceError) -> float | None:
    """Seconds after which a caller may try again; None if that is not worthwhile."""
    if error.retry_after is None and isinstance(error, (Unavailable, ResourceExhausted)):
        return RETRY_AFTER
    return error.retry_after


def describe(error: BaseException) -> str:
    """What failed and, on one line, why: callers get the first only, the log gets both.

    Why is in the notes of the error or, without any, in its cause.
    """
    said, cause = _first_line(str(error)) or type(error).__name__, error.__cause__
    why = "; ".join(map(_first_line, getattr(error, "__notes__", ())))
    if not why and cause and str(cause):
        why = describe(cause)
    return said if why in said else f"{said} ({why})"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
