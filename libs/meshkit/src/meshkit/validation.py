"""What the fields of requests may hold, alike in every service, and the errors of requests that hold something else.

A service's own errors subclass these two, to bear its domain:

    class InvalidRequest(validation.InvalidRequest, domain="pricing.aiomesh"): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from meshkit.errors import AlreadyExists, FieldViolation, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Errors travel in HTTP/2 trailers, whose size is limited: how much of a wrong request they repeat.
NAMED_VIOLATIONS, SENT_VIOLATIONS = 3, 30


class InvalidRequest(InvalidArgument):
    """Fields of the request are missing or out of range; `violations` names them, the first 30."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        named = (f"{violation.field}: {violation.description}" for violation in violations[:NAMED_VIOLATIONS])
        super().__init__("; ".join(named), violations=violations[:SENT_VIOLATIONS])


class RequestIdReused(AlreadyExists):
    """The request id was used before, for a request with another content."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request id {request_id} stands for another request; take a new one", request_id=request_id)


def reject(violations: Iterable[FieldViolation], error: type[InvalidRequest]) -> None:
    """Raises the error if there are violations."""
    if found := list(violations):
        raise error(found)


def text_violations(field: str, text: str, *, longest: int) -> Iterator[FieldViolation]:
    """A text has 1 to `longest` characters, all printable: PostgreSQL cannot hold U+0000."""
    if not (1 <= len(text) <= longest and text.isprintable()):
        yield FieldViolation(field, f"must be 1 to {longest} printable characters")


def uuid_violations(field: str, text: str) -> Iterator[FieldViolation]:
    """An id is a UUID."""
    if not is_uuid(text):
        yield FieldViolation(field, "must be a UUID")


def is_uuid(text: str) -> bool:
    """Whether it is a UUID in its usual form; uuid.UUID also reads others, such as braces and missing hyphens."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
