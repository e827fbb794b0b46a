"""The protocols that RPCs over HTTP may have: how a caller shows which one it speaks, and how it reads an error.

https://connectrpc.com/docs/protocol, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and PROTOCOL-WEB.md
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from google.rpc import code_pb2

from meshkit.connect.metadata import encode
from meshkit.errors import TABLE
from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from google.rpc import status_pb2

HTTP_STATUSES = {row.code: row.http for row in TABLE} | {"FAILED_PRECONDITION": 400}
"""Connect's status of HTTP for each code of gRPC: https://connectrpc.com/docs/protocol/#error-codes."""


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Attributes:
        name: as people know it.
        system: the `rpc.system.name` of its calls.
        media_types: the content types of its requests.
        timeout: the header with the time budget of a call.
    """

    name: str
    system: str
    media_types: frozenset[str]
    timeout: str


CONNECT = Protocol(
    "Connect", semconv.CONNECT, frozenset({"application/json", "application/proto"}), "connect-timeout-ms"
)
GRPC_WEB = Protocol(
    "gRPC-Web",
    semconv.GRPC,
    frozenset({"application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json"}),
    "grpc-timeout",
)
GRPC = Protocol(
    "gRPC",
    semconv.GRPC,
    frozenset({"application/grpc", "application/grpc+proto", "application/grpc+json"}),
    "grpc-timeout",
)


def protocol_of(media_type: str) -> Protocol:
    """The protocol of a request by its content type, which is Connect if no other one claims it."""
    if media_type.startswith("application/grpc-web"):
        return GRPC_WEB
    return GRPC if media_type == "application/grpc" or media_type.startswith("application/grpc+") else CONNECT


def code_name(name: str) -> str:
    """The name in Connect of a code of gRPC."""
    return "canceled" if name == "CANCELLED" else name.lower()


CODES = {code_name(name): name for name in code_pb2.Code.keys()}  # noqa: SIM118 - not a dict
"""The codes of gRPC, by their names in Connect."""


def error_response(
    protocol: Protocol, status: status_pb2.Status, http_status: int | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The HTTP status, the headers and the body with which a protocol reports an error before any message."""
    name = code_pb2.Code.Name(status.code)
    if protocol is CONNECT:
        return http_status or HTTP_STATUSES[name], [(b"content-type", b"application/json")], _json(name, status)
    headers = {
        "content-type": "application/grpc" if protocol is GRPC else "application/grpc-web+proto",
        "grpc-status": str(status.code),
        "grpc-message": quote(status.message, safe=" "),
        "grpc-status-details-bin": encode(status.SerializeToString()),
    }
    return http_status or 200, [(name.encode(), value.encode()) for name, value in headers.items()], b""


def _json(name: str, status: status_pb2.Status) -> bytes:
    details: list[Any] = [
        {"type": detail.type_url.rpartition("/")[2], "value": encode(detail.value)} for detail in status.details
    ]
    return json.dumps({"code": code_name(name), "message": status.message, "details": details}).encode()
