"""What the fields of requests may hold, alike in every service. Each function tells the violations of one field."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from meshkit.errors import FieldViolation

if TYPE_CHECKING:
    from collections.abc import Iterator


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
