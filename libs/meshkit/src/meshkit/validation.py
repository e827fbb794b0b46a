"""Validates the fields of requests, in the same way in every service.

A service subclasses the two errors to add its domain:

    class InvalidRequest(validation.InvalidRequest, domain="pricing.aiomesh"): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from meshkit.errors import AlreadyExists, FieldViolation, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Errors travel in HTTP/2 trailers, whose size is limited, so a message and the details repeat only so many violations.
VIOLATIONS_IN_MESSAGE, VIOLATIONS_IN_DETAILS = 3, 30


class InvalidRequest(InvalidArgument):
    """Fields of the request are missing or out of range; `violations` lists the first 30."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        messages = (f"{violation.field}: {violation.description}" for violation in violations[:VIOLATIONS_IN_MESSAGE])
        super().__init__("; ".join(messages), violations=violations[:VIOLATIONS_IN_DETAILS])


class RequestIdReused(AlreadyExists):
    """The request id was already used for a different request."""

    def __init__(self, request_id: str) -> None:
        message = f"request id {request_id} was already used for a different request; use a new one"
        super().__init__(message, request_id=request_id)


def reject(violations: Iterable[FieldViolation], error: type[InvalidRequest]) -> None:
    """Raises the error if there are violations."""
    if found := list(violations):
        raise error(found)


def text_violations(field: str, text: str, *, longest: int) -> Sequence[FieldViolation]:
    """A violation unless a text has 1 to `longest` characters, all printable (PostgreSQL cannot store U+0000)."""
    if 1 <= len(text) <= longest and text.isprintable():
        return ()
    return (FieldViolation(field, f"must be 1 to {longest} printable characters"),)


def uuid_violations(field: str, text: str) -> Sequence[FieldViolation]:
    """A violation unless an id is a UUID."""
    return () if is_uuid(text) else (FieldViolation(field, "must be a UUID"),)


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID in its usual form; uuid.UUID also accepts others, with braces or without hyphens."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
