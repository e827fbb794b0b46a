"""The calls that a channel hands out: each ends with the task that waits for it.

grpc.aio cancels a call together with such a task, but not at every moment: while it sets up a stream that is read, or
waits for the connection that is written to, the task ends alone, and the call goes on until its deadline. Likewise it
cancels a call that is read and that nobody holds any more, but not if the call has a done callback. And a call that it
cannot send, for its metadata is none, never ends.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Self

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator


class _Call:
    """A call of grpc.aio; what is not said here is its own."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._call, name)
        return self._holding(member) if iscoroutinefunction(member) else member

    def _holding(self, ask: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        async def asked(_held: _Call = self) -> Any:
            return await ask()

        return asked

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        try:
            yield
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            raise  # the caller may do better
        except BaseException:
            self._call.cancel()
            raise


class _Response(_Call):
    def __await__(self) -> Generator[Any, None, Any]:
        with self._waited_for():
            return (yield from self._call.__await__())


class _Responses(_Call):
    def __del__(self) -> None:
        self._call.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        with self._waited_for():
            return await anext(aiter(self._call))

    async def read(self) -> Any:
        """The next response, or EOF."""
        with self._waited_for():
            return await self._call.read()


class _Requests(_Call):
    async def write(self, request: Any) -> None:
        """Sends a request."""
        with self._waited_for():
            await self._call.write(request)

    async def done_writing(self) -> None:
        """Says that there are no more requests."""
        with self._waited_for():
            await self._call.done_writing()


class UnaryUnary(_Response):
    """A call with one request and one response."""


class UnaryStream(_Responses):
    """A call with many responses."""


class StreamUnary(_Requests, _Response):
    """A call with many requests."""


class StreamStream(_Requests, _Responses):
    """A call with many of both."""
