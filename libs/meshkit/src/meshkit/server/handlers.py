"""Wraps the handlers of a grpc.aio server, whatever their arity and form.

A handler that streams may be an async generator or a coroutine that calls `context.write`; grpc.aio takes both. Here
every handler becomes a coroutine, so that a concern (tracing, errors, deadlines) is written once, as a decorator
of coroutines. It also ends a generator inside the task of its RPC: grpc.aio leaves a generator of a cancelled call to
the garbage collector, where context variables can no longer be reset.

A handler of one request becomes one that reads it. grpc.aio would read it first, and call no handler, and so make no
span, for a call whose client gave up while it waited for this process, or whose request is no message. Likewise the one
response is serialized here: grpc.aio would do that last, and tell the client of a failure that no span knows of.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import grpc

from meshkit.errors import Internal, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behavior: TypeAlias = "Callable[[Any, Stream], Awaitable[Any]]"
"""What answers one RPC: takes the request (or the iterator of requests) and the context."""

Handler: TypeAlias = Any  # a grpc.RpcMethodHandler; its published types know synchronous behaviors only

UNTRACED = "/grpc."
"""The prefix of the methods of health checking and reflection: no spans, no deadline, no access log."""


class HandlerInterceptor(grpc.aio.ServerInterceptor):
    """Puts decorators around the handler of every method, but those of health checking and reflection.

    Args:
        decorates: the first is the outermost. Each is called once for each method, with its full name (slash included)
            and its behavior.
        unserved: makes the handler of a method that nobody serves, from its name; None leaves it to gRPC.
    """

    def __init__(
        self, *decorates: Callable[[str, Behavior], Behavior], unserved: Callable[[str], Handler] = lambda _: None
    ) -> None:
        self._decorates = decorates
        self._unserved = unserved
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Answers the wrapped handler."""
        handler, method = await continuation(details), details.method
        if method.startswith(UNTRACED):
            return handler
        if handler is None:
            return self._unserved(method)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, wrap(handler, lambda inner: self._decorated(method, inner)))
        return known[1]

    def _decorated(self, method: str, behavior: Behavior) -> Behavior:
        for decorate in reversed(self._decorates):
            behavior = decorate(method, behavior)
        return behavior


def wrap(handler: Handler, decorate: Callable[[Behavior], Behavior]) -> Handler:
    """A handler that answers as before through the decorated behavior, but reads its requests and serializes itself."""
    if handler.response_streaming:
        make, behavior = grpc.stream_stream_rpc_method_handler, handler.stream_stream or handler.unary_stream
        serializer, behavior = handler.response_serializer, _writing(behavior)
    else:
        make, behavior = grpc.stream_unary_rpc_method_handler, handler.stream_unary or handler.unary_unary
        serializer, behavior = None, _serializing(behavior, handler.response_serializer)
    return make(
        _streaming(decorate(behavior if handler.request_streaming else _reading(behavior))),
        request_deserializer=handler.request_deserializer,
        response_serializer=serializer,
    )


def _streaming(behavior: Behavior) -> Handler:
    async def streamed(_: object, context: Context) -> object:
        stream = Stream(context)
        response = await behavior(stream, stream)
        if stream.failed:  # gRPC would try to send it
            raise asyncio.CancelledError
        return response

    return streamed


def _reading(behavior: Behavior) -> Behavior:
    async def read(requests: Stream, context: Stream) -> object:
        request = await requests.read()
        if request is grpc.aio.EOF:  # "request cardinality violation" in gRPC's table of statuses
            raise Unimplemented("this method takes one request, and none came")
        return await behavior(request, context)

    return read


def _writing(behavior: Any) -> Behavior:
    if not inspect.isasyncgenfunction(behavior):
        return cast("Behavior", behavior)

    async def written(request: object, context: Stream) -> None:
        async with aclosing(behavior(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return written


def _serializing(behavior: Behavior, serialize: Callable[[Any], bytes] | None) -> Behavior:
    async def serialized(request: object, context: Stream) -> object:
        response = await behavior(request, context)
        if context.code_name() != "OK":  # gRPC sends no response with it
            return None
        message = serialize(response) if serialize else response
        if not isinstance(message, bytes | str | None):  # what gRPC takes
            raise TypeError(f"the handler answered with {type(message).__name__}, which is no message")
        return message

    return serialized


class Stream:
    """The context that a handler gets, and its requests, where they are many. A client that goes cancels the handler.

    In grpc.aio that comes as the end of the requests, or as the failure of what is sent, and only then as a
    cancellation; a handler would take half of an upload for the whole.

    Attributes:
        failed: whether something could not be sent or read.
    """

    def __init__(self, context: Context) -> None:
        self._context: Any = context
        self.failed = False
        self._overcome = 0

    async def read(self) -> Any:
        """The next request, or EOF.

        Raises:
            Internal: it is no message of the method, as "Error parsing request proto" in gRPC's table of statuses.
        """
        try:
            request = await self._reached(self._context.read())
        except grpc.aio.BaseError:
            raise
        except Exception as error:  # the deserializer's
            raise Internal("the request cannot be parsed") from error
        if request is grpc.aio.EOF:
            await self._reached(self._context.read())  # comes after the notice that cancels, if there is one
        return request

    async def write(self, response: Any) -> None:
        """Sends a response."""
        await self._reached(self._context.write(response))
        self._overcome = _cancellations()  # none was the client's

    async def abort(self, *status: Any, **more: Any) -> None:
        """Ends the call with a status: raises AbortError."""
        await self._reached(self._context.abort(*status, **more))

    async def abort_with_status(self, status: Any) -> None:
        """Ends the call with a status: raises AbortError."""
        await self._reached(self._context.abort_with_status(status))

    async def _reached(self, operation: Awaitable[Any]) -> Any:
        try:
            return await operation
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except grpc.aio.BaseError:  # it fails, or the server has stopped
            self.failed = True
            raise asyncio.CancelledError from None

    def is_cancelled(self) -> bool:
        """Whether the client has gone or its time is up, as far as this task has been told."""
        return self.failed or _cancellations() > self._overcome

    async def is_lost(self) -> bool:
        """Whether it has, though the handler has kept that to itself and answered."""
        if self._context.done() or not self.is_cancelled():
            return self.failed
        try:  # before Python 3.13 a TaskGroup that fails may leave its own cancellation in the count
            await self._context.send_initial_metadata(())
        except grpc.aio.UsageError:  # or they are sent
            return True
        except grpc.aio.BaseError:
            self.failed = True
        return self.failed

    def code_name(self) -> str:
        """The name of the status code that the handler left behind: OK unless it set or aborted with another."""
        code: Any = self._context.code()  # a StatusCode or a number once set; 0 or None before
        return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code or 0, "UNKNOWN")

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        if (request := await self.read()) is grpc.aio.EOF:
            raise StopAsyncIteration
        return request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
