"""Repairs spans whose values OTLP cannot carry, so that such a value loses nothing but itself.

Text with half of a surrogate pair (os.environ and file names have them for bytes that are not UTF-8) and integers of
more than 64 bits have no encoding. A collector rejects a whole request that is nested too deeply or too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, Status

if TYPE_CHECKING:
    from opentelemetry.util.types import AnyValue, Attributes

TEXT_LENGTH = 2048
"""The maximum length of a span attribute, unless the standard variables set one: long paths make large exports."""

MAX_DEPTH = 16
"""The maximum depth of lists in lists. Each map needs three levels of the 100 that protobuf reads."""

MAX_ITEMS = 128
"""The maximum number of items in a repaired list; the SDK has the same limit for attributes."""


def repair(span: ReadableSpan) -> ReadableSpan:
    """The span with values that can be encoded, and no text longer than TEXT_LENGTH."""
    return ReadableSpan(
        name=repair_text(span.name),
        context=span.context,
        parent=span.parent,
        attributes=repair_attributes(span.attributes),
        events=[_event(event) for event in span.events],
        links=[Link(link.context, repair_attributes(link.attributes)) for link in span.links],
        kind=span.kind,
        status=Status(span.status.status_code, span.status.description and repair_text(span.status.description)),
        start_time=_time(span.start_time),
        end_time=_time(span.end_time),
    )


def _event(event: Event) -> Event:
    return Event(repair_text(event.name), repair_attributes(event.attributes), _time(event.timestamp))


def _time(unix_nanoseconds: float | None) -> int:
    return min(max(int(unix_nanoseconds or 0), 0), (1 << 64) - 1)


def repair_attributes(attributes: Attributes) -> Mapping[str, AnyValue]:
    """The attributes with values that can be encoded."""
    return {repair_text(key): _value(value) for key, value in (attributes or {}).items()}


def _value(value: object, depth: int = 0) -> AnyValue:
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if -(1 << 63) <= value < 1 << 63 else _integer(value)
        case bytes():
            return value[:TEXT_LENGTH]
        case Mapping() | Sequence() if not isinstance(value, str):
            return _items(value, depth + 1) if depth < MAX_DEPTH else "…"
        case _:
            return repair_text(value)


def _items(value: Mapping[object, object] | Sequence[object], depth: int) -> AnyValue:
    if isinstance(value, Mapping):
        return {repair_text(key): _value(item, depth) for key, item in islice(value.items(), MAX_ITEMS)}
    return tuple(_value(item, depth) for item in value[:MAX_ITEMS])


def _integer(number: int) -> str:
    """The number as text; Python itself refuses to write very long ones."""
    bits = number.bit_length()
    return str(number) if bits <= TEXT_LENGTH else f"an integer of {bits} bits"


def repair_text(text: object) -> str:
    """The valid text of at most TEXT_LENGTH characters."""
    return valid_text(str(text)[:TEXT_LENGTH])


def valid_text(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
