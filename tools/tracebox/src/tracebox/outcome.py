"""Tells how a span ended: it distinguishes errors of a server from mistakes of its client.

`static/outcome.js` has the same rules for the page's waterfall, which reads Jaeger's JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tracebox.values import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracebox.store import StoredSpan

Kind: TypeAlias = Literal["", "error", "client error", "cancelled"]

HTTP = ("http.response.status_code", "http.status_code")
RPC = ("rpc.response.status_code", "rpc.grpc.status_code")
"""The attributes with a status, each with its current and its former name."""

CANCELLED = frozenset({"499", "CANCELLED", "1"})
CLIENT_ERRORS = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"}
    | {"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNAUTHENTICATED"}
    | {"3", "5", "6", "7", "8", "9", "10", "11", "16"}
)
"""The gRPC statuses, by name and number, that OpenTelemetry does not consider errors of a server span."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a span ended: the kind of outcome, and the HTTP or gRPC status if there is one."""

    kind: Kind
    status: str


def outcome(stored: StoredSpan) -> Outcome:
    """The outcome of a span."""
    failed = stored.status == int(Status.STATUS_CODE_ERROR)
    if not failed and b"status_code" not in stored.encoded:
        return Outcome("", "")
    span = Span.FromString(stored.encoded)
    tags = {attribute.key: text(attribute.value) for attribute in span.attributes}
    return Outcome(_kind(tags, failed=failed), _first(tags, HTTP + RPC))


def _kind(tags: Mapping[str, str], *, failed: bool) -> Kind:
    http, rpc = _first(tags, HTTP), _first(tags, RPC)
    if {http, rpc} & CANCELLED or tags.get("error.type", "").endswith("CancelledError"):
        return "cancelled"
    if (len(http) == len("404") and http.startswith("4")) or rpc in CLIENT_ERRORS:
        return "client error"
    return "error" if failed else ""


def _first(tags: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((tags[name] for name in names if name in tags), "")
