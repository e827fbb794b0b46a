"""The calls that a channel returns: cancelling the task that awaits one always cancels the call.

grpc.aio cancels a call with its task, except while it sets up a response stream or waits for the connection before a
write: then the task ends and the call continues until its deadline. It also cancels an abandoned response stream,
except when the call has a done callback. And a call that it cannot send, because its metadata is invalid, never ends.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import grpc

from meshkit.client.delegate import Delegate
from meshkit.client.types import Request, Response

if TYPE_CHECKING:
    from collections.abc import Generator


class _cancel_on_error:  # noqa: N801 - used like a function; contextlib's own kind costs three times as much
    """Cancels the call unless the block succeeds, or fails by a misuse of the API: then the call may continue."""

    __slots__ = ("_call",)

    def __init__(self, call: grpc.aio.Call) -> None:
        self._call = call

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None and not isinstance(error, asyncio.InvalidStateError | grpc.aio.UsageError):
            self._call.cancel()


class UnaryUnary(Delegate[grpc.aio.UnaryUnaryCall[Request, Response]], grpc.aio.UnaryUnaryCall[Request, Response]):  # pyright: ignore[reportGeneralTypeIssues]
    """A call with one request and one response."""

    def __await__(self) -> Generator[None, None, Response]:
        with _cancel_on_error(self._call):
            return (yield from self._call.__await__())


class UnaryStream(Delegate[grpc.aio.UnaryStreamCall[Request, Response]], grpc.aio.UnaryStreamCall[Request, Response]):  # pyright: ignore[reportGeneralTypeIssues]
    """A call with many responses."""

    def __del__(self) -> None:
        self._call.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        with _cancel_on_error(self._call):
            return await anext(aiter(self._call))

    async def read(self) -> Response | object:  # the published type of EOF is object
        """The next response, or EOF."""
        with _cancel_on_error(self._call):
            return await self._call.read()


class StreamUnary(Delegate[grpc.aio.StreamUnaryCall[Request, Response]], grpc.aio.StreamUnaryCall[Request, Response]):  # pyright: ignore[reportGeneralTypeIssues]
    """A call with many requests."""

    async def write(self, request: Request) -> None:
        """Sends a request."""
        with _cancel_on_error(self._call):
            await self._call.write(request)

    async def done_writing(self) -> None:
        """Ends the request stream."""
        with _cancel_on_error(self._call):
            await self._call.done_writing()

    def __await__(self) -> Generator[None, None, Response]:
        with _cancel_on_error(self._call):
            return (yield from self._call.__await__())


class StreamStream(  # pyright: ignore[reportGeneralTypeIssues]
    Delegate[grpc.aio.StreamStreamCall[Request, Response]], grpc.aio.StreamStreamCall[Request, Response]
):
    """A call with many requests and many responses."""

    def __del__(self) -> None:
        self._call.cancel()

    async def write(self, request: Request) -> None:
        """Sends a request."""
        with _cancel_on_error(self._call):
            await self._call.write(request)

    async def done_writing(self) -> None:
        """Ends the request stream."""
        with _cancel_on_error(self._call):
            await self._call.done_writing()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        with _cancel_on_error(self._call):
            return await anext(aiter(self._call))

    async def read(self) -> Response | object:  # the published type of EOF is object
        """The next response, or EOF."""
        with _cancel_on_error(self._call):
            return await self._call.read()
