"""The requests that a caller streams, for as long as its call lasts.

grpc.aio takes them in a task of its own, and through interceptors that is so for `call.write`, too, which otherwise
loses the status of a server that ends the call. It leaves that task waiting for the next request when the call has
ended; asyncio complains of it, once it is collected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def request_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """The interceptors that end the requests of a call when it ends; they belong last, within all others."""
    return [_StreamUnary(), _StreamStream()]


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await _lasting(continuation, client_call_details, request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await _lasting(continuation, client_call_details, request_iterator)


async def _lasting(continuation: Callable[[Any, Any], Awaitable[Any]], details: Any, requests: Any) -> Any:
    if not isinstance(requests, AsyncIterable):
        return await continuation(details, requests)
    outgoing = Outgoing(requests)
    call = await continuation(details, outgoing)
    call.add_done_callback(outgoing.end)
    return call


class Outgoing:
    """An iterator of requests that can be ended while it waits for one."""

    def __init__(self, requests: AsyncIterable[Any]) -> None:
        self._requests = aiter(requests)
        self._waiting: asyncio.Task[Any] | None = None
        self._over = False

    def __aiter__(self) -> Outgoing:
        return self

    async def __anext__(self) -> Any:
        if self._over:
            raise StopAsyncIteration
        self._waiting = asyncio.current_task()
        try:
            return await anext(self._requests)
        finally:
            self._waiting = None

    def end(self, _call: object) -> None:
        """Cancels who waits for a request: the task that grpc.aio made for that."""
        self._over = True
        if self._waiting:  # soon, for an interceptor without that waits for the call's end has the first turn
            self._waiting.get_loop().call_soon(self._waiting.cancel)
