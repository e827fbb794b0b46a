"""Calls over gRPC-Web, by frames of its own: binary, as a page sends them."""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from google.rpc.status_pb2 import Status
from grpc import StatusCode

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from tests.edge.protocols.client import SECONDS, Failure
from tests.edge.protocols.rpc import details_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import aiohttp

    from tests.edge.protocols.rpc import Metadata

SERVICE = pb.DESCRIPTOR.services_by_name["StorefrontService"]
CODES = {str(code.value[0]): code.name for code in StatusCode}
TRAILERS = 0x80


class WebCaller:
    """See Caller."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = f"{url}/{SERVICE.full_name}/"

    def status_of(self, code: str) -> str:
        return code

    async def call(self, method: str, request: Any, metadata: Metadata) -> tuple[Any, dict[str, Any]]:
        own = {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1", "Grpc-Timeout": f"{SECONDS}S"}
        headers = [*own.items(), *metadata]
        async with self._http.post(
            self._url + method, data=frame(request.SerializeToString()), headers=headers
        ) as response:
            body = await response.read()
        assert (response.status, response.content_type) == (200, "application/grpc-web+proto")
        messages, trailers = parsed(body)
        trailers = trailers or dict(response.headers)
        if trailers["grpc-status"] != "0":
            raise failure(trailers)
        (message,) = messages
        output = getattr(pb, SERVICE.methods_by_name[method].output_type.name)
        return output.FromString(message), trailers


def frame(message: bytes, flags: int = 0) -> bytes:
    """A message with its prefix."""
    return struct.pack(">BI", flags, len(message)) + message


def parsed(body: bytes) -> tuple[list[bytes], dict[str, str]]:
    """The messages and the trailers of a response."""
    found = list(frames(body))
    block = b"".join(message for flags, message in found if flags & TRAILERS).decode()
    lines = [line.partition(": ")[::2] for line in block.splitlines()]
    return [message for flags, message in found if not flags & TRAILERS], dict(lines)


def frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        flags, length = struct.unpack_from(">BI", body)
        yield flags, body[5 : 5 + length]
        body = body[5 + length :]


def failure(trailers: Mapping[str, str]) -> Failure:
    """The error in the trailers of a response."""
    status = Status.FromString(b64decode(trailers["grpc-status-details-bin"] + "==="))
    details = [(detail.type_url.rpartition("/")[2], detail.value) for detail in status.details]
    return Failure(CODES[trailers["grpc-status"]], details_of(unquote(trailers["grpc-message"]), details))
