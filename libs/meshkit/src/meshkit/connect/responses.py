"""Reads from a response, as it is sent, which status the call has: what the client sees is what the span has."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

from google.rpc import code_pb2
from grpc import StatusCode

from meshkit.connect.protocols import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Message

STATUSES = {code.value[0]: code for code in StatusCode}
PREFIX_BYTES = 5
"""The flags and the length before each message of gRPC-Web. The last one has the trailers and the flag 0x80."""
TRAILERS, COMPRESSED = 0x80, 0x01
OK = 200


class ResponseStatus:
    """The status of one response.

    Attributes:
        code: UNKNOWN until the response has one.
    """

    def __init__(self) -> None:
        self.code = StatusCode.UNKNOWN
        self._http_status = 0
        self._is_grpc = False
        self._body = b""

    def read(self, message: Message) -> None:
        """Reads one message of ASGI."""
        match message["type"]:
            case "http.response.start":
                self._http_status = message["status"]
                self._is_grpc = dict(message["headers"]).get(b"content-type", b"").startswith(b"application/grpc")
                self._read_trailers(message["headers"])
            case "http.response.trailers":
                self._read_trailers(message["headers"])
            case "http.response.body" if self._is_grpc:
                self._read_trailers(_web_trailers(message.get("body", b"")))
            case "http.response.body":
                self._read_connect(message)

    def _read_trailers(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        if status := dict(fields).get(b"grpc-status"):
            self.code = STATUSES[int(status)]

    def _read_connect(self, message: Message) -> None:
        if self._http_status == OK:
            self.code = StatusCode.UNKNOWN if message.get("more_body") else StatusCode.OK
            return
        self._body += message.get("body", b"")
        if self._body and not message.get("more_body"):
            self.code = STATUSES[code_pb2.Code.Value(CODES[json.loads(self._body)["code"]])]


def _web_trailers(body: bytes) -> Iterable[tuple[bytes, bytes]]:
    if not body or not body[0] & TRAILERS:
        return ()
    block = body[PREFIX_BYTES:]
    lines = (gzip.decompress(block) if body[0] & COMPRESSED else block).split(b"\r\n")
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
