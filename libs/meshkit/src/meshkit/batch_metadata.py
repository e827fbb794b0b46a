"""The members of a batch RPC, which travel in its metadata, so that the server's spans can reach their traces.

The key is `meshkit-batch-bin`. The value is the number of members, as two bytes in network order, and for each sampled
member 25 bytes: its trace id, its span id and its trace flags, as in `traceparent` (W3C Trace Context, section 3.2.2).
The first of them is the one under whose span the RPC is. A value of any other form is ignored.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanContext, TraceFlags

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEY = "meshkit-batch-bin"

MAX_MEMBERS = 100
"""The most members of a batch: that of the batch methods (AIP-231), and what fits into the metadata of a call."""

_SIZE = struct.Struct(">H")
_MEMBER = struct.Struct(">16s8sB")


@dataclass(frozen=True)
class Members:
    """The members of one batch.

    Attributes:
        size: how many there are, also those that are not sampled.
        sampled: the spans of the sampled ones.
    """

    size: int
    sampled: Sequence[SpanContext]


def write_members(members: Members) -> tuple[str, bytes]:
    """The entry of the metadata."""
    packed = [
        _MEMBER.pack(span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big"), span.trace_flags)
        for span in members.sampled
    ]
    return KEY, b"".join([_SIZE.pack(members.size), *packed])


def read_members(metadata: Iterable[tuple[str, str | bytes]]) -> Members | None:
    """The members of the batch that an RPC is; None if it is no batch, or has an invalid entry."""
    for key, value in metadata:
        if key == KEY:
            return _parse(value) if isinstance(value, bytes) else None
    return None


def _parse(value: bytes) -> Members | None:
    count, rest = divmod(len(value) - _SIZE.size, _MEMBER.size)
    if rest or not 1 <= count <= MAX_MEMBERS:
        return None
    (size,) = _SIZE.unpack_from(value)
    sampled = [_span_context(*fields) for fields in _MEMBER.iter_unpack(value[_SIZE.size :])]
    return Members(size, sampled) if count <= size <= MAX_MEMBERS and all(s.is_valid for s in sampled) else None


def _span_context(trace_id: bytes, span_id: bytes, flags: int) -> SpanContext:
    return SpanContext(int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), True, TraceFlags(flags))
