"""Ends the request stream of a call when the call ends.

grpc.aio reads a request stream in its own task. With interceptors it does so for `call.write` too, which otherwise
loses the status of a server that ends the call. When the call ends, grpc.aio leaves that task waiting for the next
request, and asyncio reports it when it is garbage-collected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Generic, Self

import grpc

from meshkit.client.types import Request

if TYPE_CHECKING:
    from meshkit.client.types import Call, Continuation, Response


def request_stream_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """The interceptors that end the requests of a call when it ends. Put them last, so that they run innermost."""
    return [_StreamUnary(), _StreamStream()]


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: Continuation[
            AsyncIterable[Request] | Iterable[Request], grpc.aio.StreamUnaryCall[Request, Response]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[Request] | Iterable[Request],
    ) -> grpc.aio.StreamUnaryCall[Request, Response]:
        return await _start(continuation, client_call_details, request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Continuation[
            AsyncIterable[Request] | Iterable[Request], grpc.aio.StreamStreamCall[Request, Response]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[Request] | Iterable[Request],
    ) -> grpc.aio.StreamStreamCall[Request, Response]:
        return await _start(continuation, client_call_details, request_iterator)


async def _start(
    continuation: Continuation[AsyncIterable[Request] | Iterable[Request], Call],
    details: grpc.aio.ClientCallDetails,
    requests: AsyncIterable[Request] | Iterable[Request],
) -> Call:
    if not isinstance(requests, AsyncIterable):
        return await continuation(details, requests)
    stream = RequestStream(requests)
    call = await continuation(details, stream)
    call.add_done_callback(stream.end)
    return call


class RequestStream(Generic[Request]):
    """An iterator of requests that can be ended while it waits for one."""

    def __init__(self, requests: AsyncIterable[Request]) -> None:
        self._requests = aiter(requests)
        self._reader: asyncio.Task[None] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Request:
        if self._closed:
            raise StopAsyncIteration
        self._reader = asyncio.current_task()
        try:
            return await anext(self._requests)
        finally:
            self._reader = None

    def end(self, _call: grpc.aio.Call) -> None:
        """Cancels the task of grpc.aio that waits for a request."""
        self._closed = True
        if self._reader:  # call_soon, so that an interceptor that awaits the call's end runs first
            self._reader.get_loop().call_soon(self._reader.cancel)
