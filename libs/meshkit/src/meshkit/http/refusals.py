"""Why a connection refuses or cancels a request. Each server renders them in its own format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

CANCELLED_FOR = "cancelled_for"
"""The key in the ASGI scope's `state` of the error because of which the connection cancelled a request."""


@dataclass(frozen=True)
class Refusal:
    """A reason not to serve a request: its HTTP status, its name, and a text for the client."""

    status: int
    reason: str
    detail: str


INVALID_HTTP = Refusal(400, "INVALID_HTTP", "the bytes received are not an HTTP/1.1 request")
HEAD_TIMEOUT = Refusal(408, "REQUEST_TIMEOUT", "the head of the request did not arrive in time")
TARGET_TOO_LONG = Refusal(414, "URI_TOO_LONG", "the target of the request is too long")
FIELDS_TOO_LARGE = Refusal(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "the fields of the request are too many or too long")
UNKNOWN_CODING = Refusal(501, "UNKNOWN_TRANSFER_CODING", "the only supported Transfer-Encoding is chunked")
UNKNOWN_VERSION = Refusal(505, "HTTP_VERSION_NOT_SUPPORTED", "the supported versions are HTTP/1.1 and HTTP/1.0")

REFUSALS = (INVALID_HTTP, TARGET_TOO_LONG, FIELDS_TOO_LARGE, UNKNOWN_CODING, UNKNOWN_VERSION)
"""The refusals of a request because of its bytes."""

DISCONNECTED = Refusal(499, "CLIENT_DISCONNECTED", "the client closed its connection")
"""The client disconnected before its request had a response."""


class Refused(Exception):
    """Ends the parsing of a connection."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Renderer(Protocol):
    """Renders refusals in the format of a server."""

    def error(self, refusal: Refusal) -> Exception:
        """The error for the `state` of a cancelled request, see CANCELLED_FOR."""
        ...

    def response(self, refusal: Refusal) -> tuple[Iterable[tuple[bytes, bytes]], bytes]:
        """The header fields, with Content-Length, and the body of the response."""
        ...
