"""Checks the head of an RPC before its body is read, and turns it into what connectrpc gets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import parse_qs

from meshkit.connect.protocols import CONNECT, GRPC, Protocol, protocol_of
from meshkit.errors import InvalidArgument, Unimplemented
from meshkit.fastapi.prefix import route_path
from meshkit.server.deadlines import MAX_SECONDS

if TYPE_CHECKING:
    from starlette.types import Scope

UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
"""The units of `grpc-timeout`, in seconds."""

TIMEOUTS = {"grpc-timeout": "([0-9]{1,8})([HMSmun])", "connect-timeout-ms": "([0-9]{1,10})()"}
"""The time budgets that callers may send, by their headers."""

CODECS = {"json", "proto"}


class RefusedHead(Exception):
    """The head of a request is not one of a call.

    Attributes:
        http_status: of the response, instead of that of the code.
        headers: of the response.
    """

    def __init__(self, what: str, http_status: int, header: str, value: str) -> None:
        super().__init__(f"this {what} is not supported; use {value.replace(', ', ' or ')}")
        self.http_status = http_status
        self.headers = [(header.encode(), value.encode())]


@dataclass(frozen=True)
class Head:
    """The head of a request.

    Attributes:
        protocol: that the caller speaks.
        path: without the prefix of a proxy.
        metadata: the headers, with names in lower case.
        http_method: such as `POST`.
        media_type: the content type without parameters, in lower case.
    """

    protocol: Protocol
    path: str
    metadata: tuple[tuple[str, str], ...]
    http_method: str
    media_type: str

    def seconds(self) -> float | None:
        """The time budget that the caller sent. Raises InvalidArgument."""
        name = self.protocol.timeout
        values = [value for key, value in self.metadata if key == name]
        if not values:
            return None
        found = re.fullmatch(TIMEOUTS[name], values[0])
        if len(values) > 1 or not found:
            raise InvalidArgument(f"{name} is invalid")
        return int(found[1]) * UNITS.get(found[2], 1e-3)


def read_head(scope: Scope) -> Head:
    """The head of a request."""
    metadata = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    content_type = next((value for name, value in metadata if name == "content-type"), "")
    media_type = content_type.partition(";")[0].strip().lower()
    return Head(protocol_of(media_type), route_path(scope), metadata, scope["method"], media_type)


def check(head: Head, scope: Scope, *, gets: bool) -> None:
    """Checks what connectrpc would answer outside of the caller's protocol, or with a traceback.

    Args:
        head: of the request.
        scope: its ASGI scope.
        gets: whether the method has no side effects, so that Connect may send it as a GET.

    Raises:
        RefusedHead: the method of HTTP or the media type is unsupported.
        InvalidArgument: the query is invalid.
        Unimplemented: the caller speaks gRPC, and the server sends no trailers.
    """
    methods = ("GET", "POST") if gets and head.protocol is CONNECT else ("POST",)
    if head.http_method not in methods:
        raise RefusedHead("method of HTTP", 405, "allow", ", ".join(methods))
    if head.http_method == "GET":
        _check_query(scope["query_string"])
    elif head.media_type not in head.protocol.media_types:
        _refuse_media_type(head.protocol)
    if head.protocol is GRPC and not has_trailers(scope):
        raise Unimplemented("this port sends no trailers, so it speaks Connect and gRPC-Web, but not gRPC")


def has_trailers(scope: Scope) -> bool:
    """Whether the server sends trailers: https://asgi.readthedocs.io/en/latest/extensions.html#http-trailers."""
    return "http.response.trailers" in (scope.get("extensions") or {})


def _check_query(query: bytes) -> None:
    if not query.isascii():
        raise InvalidArgument("the query is not ASCII")
    if parse_qs(query.decode()).get("encoding", [""])[0] not in CODECS:
        _refuse_media_type(CONNECT)


def _refuse_media_type(protocol: Protocol) -> NoReturn:
    raise RefusedHead("content type", 415, "accept-post", ", ".join(sorted(protocol.media_types)))


def scope_of_call(head: Head, scope: Scope, seconds: float | None) -> Scope:
    """The ASGI scope for connectrpc: with one media type, one time budget, and values that it can decode."""
    milliseconds = round(min(MAX_SECONDS if seconds is None else seconds, MAX_SECONDS) * 1000)
    timeout = f"{milliseconds}m" if head.protocol is not CONNECT else str(milliseconds)
    sent = [(name, value) for name, value in head.metadata if name not in {"content-type", *TIMEOUTS}]
    headers = [*sent, ("content-type", head.media_type), (head.protocol.timeout, timeout)]
    return {
        **scope,
        "path": head.path,
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
