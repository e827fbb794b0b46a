"""One RPC over HTTP, with as much of gRPC's context as `meshkit.server` and servicers use."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NoReturn

import grpc
from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from google.rpc import code_pb2, status_pb2
from protobuf.wkt import Any

from meshkit.connect.head import RefusedHead, check, has_trailers, read_head, scope_of_call
from meshkit.connect.metadata import from_headers
from meshkit.connect.protocols import GRPC, code_name, error_response
from meshkit.connect.responses import STATUSES, ResponseStatus
from meshkit.errors import InvalidArgument, ServiceError, Unavailable
from meshkit.fastapi.refusal import discard, expects_continue
from meshkit.http.refusals import CANCELLED_FOR
from meshkit.server.deadlines import MAX_SECONDS
from meshkit.status import write_status

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from meshkit.connect.metadata import Pairs
    from meshkit.server.context import Metadata

DETAILS = "grpc-status-details-bin"


class HttpCall:
    """A call. See grpc.aio.ServicerContext for what is not described.

    Attributes:
        head: of the request.
        asgi_scope: that of the request.
        response: the status that the client has read so far.
        request: the message, once it is here.
        aborted: the status with which the handler ended the call, if it did.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asgi_scope = scope
        self.head = read_head(scope)
        self.response = ResponseStatus()
        self.request: object = None
        self.aborted: status_pb2.Status | None = None
        self._receive, self._send = receive, send
        self._metadata = from_headers(self.head.metadata)
        self._initial: Pairs = ()
        self._trailing: Pairs = ()
        self._set_code: grpc.StatusCode | None = None
        self._set_details = ""
        self._has_body = False
        self._is_disconnected = False
        self._seconds, self._invalid = _seconds(self)
        self._end = time.monotonic() + (MAX_SECONDS if self._seconds is None else min(self._seconds, MAX_SECONDS))

    @property
    def http_call(self) -> HttpCall:
        """This call, for those who have it as the context of gRPC."""
        return self

    def peer(self) -> str:  # noqa: D102
        host, port = self.asgi_scope["client"] or ("", 0)
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def invocation_metadata(self) -> Pairs:  # noqa: D102
        return self._metadata

    def time_remaining(self) -> float | None:  # noqa: D102
        return None if self._seconds is None else self._end - time.monotonic()

    def initial_metadata(self) -> Pairs:
        """The metadata that the client gets before the response."""
        return self._initial

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Adds metadata, which travel with the response."""
        self._initial += tuple(metadata)

    def trailing_metadata(self) -> Pairs:  # noqa: D102
        return self._trailing

    def set_trailing_metadata(self, metadata: Metadata) -> None:  # noqa: D102
        self._trailing = tuple(metadata)

    def set_code(self, code: grpc.StatusCode | int) -> None:  # noqa: D102
        self._set_code = code if isinstance(code, grpc.StatusCode) else STATUSES[code]

    def set_details(self, details: str) -> None:  # noqa: D102
        self._set_details = details

    def code(self) -> grpc.StatusCode:
        """The status in the response; before, that which the handler has set, or UNKNOWN."""
        code = self.response.code
        return self._set_code or code if code is grpc.StatusCode.UNKNOWN else code

    async def abort_if_set(self) -> None:
        """Aborts if the handler has set another status than OK."""
        if self._set_code not in {None, grpc.StatusCode.OK}:
            await self.abort(self.code(), self._set_details)

    def done(self) -> bool:  # noqa: D102
        return self.aborted is not None or self.response.code is not grpc.StatusCode.UNKNOWN

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """Notes the status of the call, and raises AbortError. Trailing metadata replace those that are set."""
        if trailing_metadata:
            self._trailing = tuple(each for each in trailing_metadata if each[0] != DETAILS)
        rich = next((value for name, value in trailing_metadata if name == DETAILS), None)
        self.aborted = (
            status_pb2.Status.FromString(rich)
            if isinstance(rich, bytes)
            else status_pb2.Status(code=code.value[0], message=details)
        )
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:  # noqa: D102
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def refused(self, *, gets: bool) -> bool:
        """Responds with an error if the head of the request is invalid; returns whether it did."""
        try:
            if self._invalid:
                raise self._invalid
            check(self.head, self.asgi_scope, gets=gets)
        except RefusedHead as refusal:
            await self.respond(InvalidArgument(str(refusal)), refusal)
        except ServiceError as error:
            await self.respond(error)
        else:
            return False
        return True

    async def respond(self, error: ServiceError, refusal: RefusedHead | None = None) -> None:
        """Responds with an error, in the protocol of the caller, which may send its body first."""
        if not expects_continue(self.asgi_scope):
            await discard(self._read)
        status, headers, body = error_response(
            self.head.protocol, write_status(error), refusal.http_status if refusal else None
        )
        headers += refusal.headers if refusal else ()
        if self.head.protocol is not GRPC:
            headers.append((b"content-length", str(len(body)).encode()))
        if self.head.protocol is GRPC and has_trailers(self.asgi_scope):
            await self._respond_with_trailers(status, headers)
            return
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _respond_with_trailers(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Sends the headers of an error as trailers, but for the content type.

        gRPC's core rejects a response of headers alone whose stream ends with an empty frame of data, as it does on
        ASGI servers.
        """
        start = [header for header in headers if not header[0].startswith(b"grpc-")]
        trailers = [header for header in headers if header[0].startswith(b"grpc-")]
        await self.send({"type": "http.response.start", "status": status, "headers": start, "trailers": True})
        await self.send({"type": "http.response.body", "body": b""})
        await self.send({"type": "http.response.trailers", "headers": trailers})

    def scope(self) -> Scope:
        """The ASGI scope for connectrpc."""
        return scope_of_call(self.head, self.asgi_scope, self._seconds)

    async def receive(self) -> Message:
        """See ASGI. Raises ConnectError if the server stops."""
        try:
            return await self._read()
        except asyncio.CancelledError:
            self.raise_if_stopped()
            raise

    async def _read(self) -> Message:
        message = await self._receive()
        self._is_disconnected |= message["type"] == "http.disconnect"
        self._has_body |= not message.get("more_body")
        return message

    async def send(self, message: Message) -> None:
        """See ASGI. After a response to half of a request, an HTTP/1.1 connection closes."""
        if message["type"] == "http.response.start" and not self._has_body and self.asgi_scope["http_version"] < "2":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        self.response.read(message)
        await self._send(message)

    def raise_if_stopped(self) -> None:
        """Raises ConnectError if this call is cancelled because the server stops."""
        is_late = time.monotonic() >= self._end
        is_lost = self._is_disconnected or CANCELLED_FOR in self.asgi_scope.get("state", ())
        if not is_late and not is_lost:
            raise connect_error(write_status(Unavailable("this server is shutting down"))) from None


def connect_error(status: status_pb2.Status) -> ConnectError:
    """The error of connectrpc with the code, the message and the details of a status."""
    details = [ErrorDetail(Any(type_url=detail.type_url, value=detail.value)) for detail in status.details]
    return ConnectError(Code(code_name(code_pb2.Code.Name(status.code))), status.message, details)


def _seconds(call: HttpCall) -> tuple[float | None, InvalidArgument | None]:
    try:
        return call.head.seconds(), None
    except InvalidArgument as error:
        return None, error
