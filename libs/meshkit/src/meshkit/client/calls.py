"""The calls that a channel returns: cancelling the task that awaits one always cancels the call.

grpc.aio cancels a call with its task, except while it sets up a response stream or waits for the connection before a
write: then the task ends and the call continues until its deadline. It also cancels an abandoned response stream,
except when the call has a done callback. And a call that it cannot send, because its metadata is invalid, never ends.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import grpc

from meshkit.client.delegate import Delegate
from meshkit.client.types import Call, Request, Response

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


class _Call(Delegate[Call]):
    """What calls of all arities share."""

    @contextmanager
    def _cancel_on_error(self) -> Iterator[None]:
        try:
            yield
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            raise  # a misuse of the API: the call may continue
        except BaseException:
            self._call.cancel()
            raise


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
