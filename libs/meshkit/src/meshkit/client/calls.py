"""The calls that a channel returns: cancelling the task that awaits one always cancels the call.

grpc.aio cancels a call with its task, except while it sets up a response stream or waits for the connection before a
write: then the task ends and the call continues until its deadline. It also cancels an abandoned response stream,
except when the call has a done callback. And a call that it cannot send, because its metadata is invalid, never ends.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Self

import grpc

from meshkit.client.types import Call, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


class _Call(Generic[Call], grpc.aio.Call):  # noqa: PYI059 - the order of gRPC's subclasses
    """What calls of all arities share. Its coroutines refer to it, so a stream in use is not garbage-collected."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @contextmanager
    def _cancel_on_error(self) -> Iterator[None]:
        try:
            yield
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            raise  # a misuse of the API: the call may continue
        except BaseException:
            self._call.cancel()
            raise

    def cancelled(self) -> bool:
        return self._call.cancelled()

    def done(self) -> bool:
        return self._call.done()

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def cancel(self) -> bool:
        return self._call.cancel()

    def add_done_callback(self, callback: Callable[[Call], None]) -> None:
        self._call.add_done_callback(callback)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return await self._call.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        return await self._call.code()

    async def details(self) -> str:
        return await self._call.details()

    async def debug_error_string(self) -> str | None:
        return await self._call.debug_error_string()  # type: ignore[attr-defined, no-any-return] # every call has it

    async def wait_for_connection(self) -> None:
        await self._call.wait_for_connection()


class UnaryUnary(_Call[grpc.aio.UnaryUnaryCall[Request, Response]], grpc.aio.UnaryUnaryCall[Request, Response]):  # pyright: ignore[reportGeneralTypeIssues]
    """A call with one request and one response."""

    def __await__(self) -> Generator[None, None, Response]:
        with self._cancel_on_error():
            return (yield from self._call.__await__())


class UnaryStream(_Call[grpc.aio.UnaryStreamCall[Request, Response]], grpc.aio.UnaryStreamCall[Request, Response]):  # pyright: ignore[reportGeneralTypeIssues]
    """A call with many responses."""

    def __del__(self) -> None:
        self._call.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        with self._cancel_on_error():
            return await anext(aiter(self._call))

    async def read(self) -> Response | object:  # the published type of EOF is object
        """The next response, or EOF."""
        with self._cancel_on_error():
            return await self._call.read()


class StreamUnary(_Call[grpc.aio.StreamUnaryCall[Request, Response]], grpc.aio.StreamUnaryCall[Request, Response]):  # pyright: ignore[reportGeneralTypeIssues]
    """A call with many requests."""

    async def write(self, request: Request) -> None:
        """Sends a request."""
        with self._cancel_on_error():
            await self._call.write(request)

    async def done_writing(self) -> None:
        """Ends the request stream."""
        with self._cancel_on_error():
            await self._call.done_writing()

    def __await__(self) -> Generator[None, None, Response]:
        with self._cancel_on_error():
            return (yield from self._call.__await__())


class StreamStream(_Call[grpc.aio.StreamStreamCall[Request, Response]], grpc.aio.StreamStreamCall[Request, Response]):  # pyright: ignore[reportGeneralTypeIssues]
    """A call with many requests and many responses."""

    def __del__(self) -> None:
        self._call.cancel()

    async def write(self, request: Request) -> None:
        """Sends a request."""
        with self._cancel_on_error():
            await self._call.write(request)

    async def done_writing(self) -> None:
        """Ends the request stream."""
        with self._cancel_on_error():
            await self._call.done_writing()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        with self._cancel_on_error():
            return await anext(aiter(self._call))

    async def read(self) -> Response | object:  # the published type of EOF is object
        """The next response, or EOF."""
        with self._cancel_on_error():
            return await self._call.read()
