"""Makes INTERNAL of a response that cannot be parsed ("Error parsing response proto" in gRPC's table of statuses).

https://grpc.github.io/grpc/core/md_doc_statuscodes.html. grpc.aio returns None instead of such a response, and the call
ends with OK, as does its span. Here the deserializer returns an `Unparsable`, and the calls of this module turn that
into the failure of the call: what awaits or reads it gets INTERNAL, and so does all that looks at its status, such as
tracing.

A channel's calls are `parsed`. gRPC's interceptors run inside of that, so where there are any, the innermost of them
does the same.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TypeVar, cast

import grpc

from meshkit.client.delegate import Delegate, result_of
from meshkit.client.types import Call, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Generator, Iterable, Sequence
    from typing import TypeAlias, Unpack

    from meshkit.client.types import CallOptions, Continuation, Deserializer, Multicallable

    Stream: TypeAlias = AsyncIterable[Request] | Iterable[Request]
    """The requests of a streaming call, as an interceptor gets them."""

DETAILS = "the response cannot be parsed"

T = TypeVar("T")


class Unparsable:
    """Stands for a response that cannot be parsed, or that the server did not send."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def failure(self) -> grpc.aio.AioRpcError:
        """The failure of the call, whose cause is what the deserializer raised."""
        failure = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), DETAILS)
        failure.__cause__ = self._error
        return failure


def parser(deserialize: Deserializer[Response] | None) -> Deserializer[Response] | None:
    """A deserializer that returns an `Unparsable` instead of raising."""
    if deserialize is None:
        return None

    def parse(message: bytes) -> Response:
        try:
            return deserialize(message)
        except Exception as error:  # noqa: BLE001 - gRPC would log it and return None
            return cast("Response", Unparsable(error))  # `_checked` raises it

    return parse


def parsed(multicallable: Multicallable[Request, Call], wrap: Callable[[Call], Call]) -> Multicallable[Request, Call]:
    """A multicallable whose calls are wrapped in one of the four classes below."""

    def start(request: Request, /, **options: Unpack[CallOptions]) -> Call:
        return wrap(multicallable(request, **options))

    return start


def with_parsing(interceptors: Sequence[grpc.aio.ClientInterceptor]) -> list[grpc.aio.ClientInterceptor]:
    """These interceptors, and within them those that show them INTERNAL."""
    return [*interceptors, _UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()] if interceptors else []


class _Parsed(Delegate[Call]):
    """What calls of all arities share."""

    _failure: grpc.aio.AioRpcError | None = None

    def _checked(self, response: T | Unparsable) -> T:
        """The response. Raises the failure of the call instead if it is an `Unparsable`."""
        if not isinstance(response, Unparsable):
            return response
        if self._failure is None:
            self._failure = response.failure()
            self._call.cancel()  # a stream would go on
        raise self._failure

    def cancelled(self) -> bool:
        return self._failure is None and self._call.cancelled()

    def add_done_callback(self, callback: Callable[[grpc.aio.Call], None]) -> None:
        """Runs the callback once the call is done and its last response is parsed."""

        def run(call: grpc.aio.Call) -> None:
            if result_of(call.code()) is grpc.StatusCode.OK:  # then gRPC parses the response in the same step
                asyncio.get_running_loop().call_soon(callback, self)
            else:
                callback(self)

        self._call.add_done_callback(run)

    async def code(self) -> grpc.StatusCode:
        code = await self._call.code()
        return self._failure.code() if self._failure else code

    async def details(self) -> str:
        details = await self._call.details()
        return DETAILS if self._failure else details


class _ParsedUnary(_Parsed[Call]):
    """A call with one response, whose status may be asked for before its response."""

    _settled = False

    @abstractmethod
    def __await__(self) -> Generator[None, None, object]: ...

    async def code(self) -> grpc.StatusCode:
        code = await self._call.code()
        if code is grpc.StatusCode.OK and not self._settled:
            with suppress(grpc.aio.AioRpcError):
                await self
            self._settled = True
        return self._failure.code() if self._failure else code

    async def details(self) -> str:
        if not self._settled:
            await self.code()
        return DETAILS if self._failure else await self._call.details()


class _ParsedStream(_Parsed[Call]):
    """A call with many responses. One that cannot be parsed ends it."""

    def __aiter__(self) -> Self:
        return self

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure


class _Writes(Delegate[Call]):
    """A call with many requests."""

    @property
    def _done_writing_flag(self) -> bool:  # gRPC's calls with interceptors read it
        return bool(self._call._done_writing_flag)  # type: ignore[attr-defined] # noqa: SLF001 - gRPC's calls have it


class ParsedUnaryUnary(  # pyright: ignore[reportGeneralTypeIssues]
    _ParsedUnary[grpc.aio.UnaryUnaryCall[Request, Response]], grpc.aio.UnaryUnaryCall[Request, Response]
):
    """A call with one request and one response."""

    def __await__(self) -> Generator[None, None, Response]:
        return self._checked((yield from self._call.__await__()))


class ParsedUnaryStream(  # pyright: ignore[reportGeneralTypeIssues]
    _ParsedStream[grpc.aio.UnaryStreamCall[Request, Response]], grpc.aio.UnaryStreamCall[Request, Response]
):
    """A call with many responses."""

    async def __anext__(self) -> Response:
        self._raise_failure()
        return self._checked(await anext(aiter(self._call)))

    async def read(self) -> Response | object:  # the published type of EOF is object
        """The next response, or EOF."""
        self._raise_failure()
        return self._checked(await self._call.read())


class ParsedStreamUnary(  # pyright: ignore[reportGeneralTypeIssues]
    _Writes[grpc.aio.StreamUnaryCall[Request, Response]],
    _ParsedUnary[grpc.aio.StreamUnaryCall[Request, Response]],
    grpc.aio.StreamUnaryCall[Request, Response],
):
    """A call with many requests."""

    async def write(self, request: Request) -> None:
        """Sends a request."""
        await self._call.write(request)

    async def done_writing(self) -> None:
        """Ends the request stream."""
        await self._call.done_writing()

    def __await__(self) -> Generator[None, None, Response]:
        return self._checked((yield from self._call.__await__()))


class ParsedStreamStream(  # pyright: ignore[reportGeneralTypeIssues]
    _Writes[grpc.aio.StreamStreamCall[Request, Response]],
    _ParsedStream[grpc.aio.StreamStreamCall[Request, Response]],
    grpc.aio.StreamStreamCall[Request, Response],
):
    """A call with many requests and many responses."""

    async def write(self, request: Request) -> None:
        """Sends a request."""
        await self._call.write(request)

    async def done_writing(self) -> None:
        """Ends the request stream."""
        await self._call.done_writing()

    async def __anext__(self) -> Response:
        self._raise_failure()
        return self._checked(await anext(aiter(self._call)))

    async def read(self) -> Response | object:  # the published type of EOF is object
        """The next response, or EOF."""
        self._raise_failure()
        return self._checked(await self._call.read())


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Continuation[Request, grpc.aio.UnaryUnaryCall[Request, Response]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> grpc.aio.UnaryUnaryCall[Request, Response]:
        return ParsedUnaryUnary(await continuation(client_call_details, request))


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Continuation[Request, grpc.aio.UnaryStreamCall[Request, Response]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> grpc.aio.UnaryStreamCall[Request, Response]:
        return ParsedUnaryStream(await continuation(client_call_details, request))


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: Continuation[Stream[Request], grpc.aio.StreamUnaryCall[Request, Response]],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Stream[Request],
    ) -> grpc.aio.StreamUnaryCall[Request, Response]:
        return ParsedStreamUnary(await continuation(client_call_details, request_iterator))


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Continuation[Stream[Request], grpc.aio.StreamStreamCall[Request, Response]],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Stream[Request],
    ) -> grpc.aio.StreamStreamCall[Request, Response]:
        return ParsedStreamStream(await continuation(client_call_details, request_iterator))
