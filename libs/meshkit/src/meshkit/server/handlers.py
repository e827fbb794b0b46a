"""Turns every handler of a grpc.aio server, of any arity and form, into one behavior.

A streaming handler may be an async generator or a coroutine that calls `context.write`; grpc.aio accepts both. Here
every handler becomes a coroutine, so a concern (tracing, errors, deadlines) is written once, as a decorator of
coroutines. This also closes a generator inside the task of its RPC: grpc.aio leaves the generator of a cancelled call
to the garbage collector, where context variables can no longer be reset.

A handler of one request becomes one that reads it. If grpc.aio read it first, there would be no handler call and no
span for a client that gave up while it waited for this process, or for a request that cannot be parsed. The one
response is serialized here too: grpc.aio would do that last and send the client an error that no span shows.
docs/decisions/0003-one-form-of-handler.md describes the alternatives.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, cast

import grpc

from meshkit.errors import Unimplemented
from meshkit.server.context import CallContext, Request, Response, T

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from meshkit.server.types import Behavior, Concern, Entry, Handler, Message, StreamFunction, UnaryFunction

INFRASTRUCTURE = "/grpc."
"""The prefix of health checking and reflection methods, which have no spans, no deadline and no access log."""


class HandlerInterceptor(grpc.aio.ServerInterceptor):
    """Surrounds the handler of every method, but those of health checking and reflection; the first of interceptors.

    Args:
        concerns: the first is the outermost. Each is called once for each method.
        unknown_method_concerns: surround the response to an unknown method; without them gRPC itself responds.
    """

    def __init__(self, concerns: Sequence[Concern], unknown_method_concerns: Sequence[Concern] = ()) -> None:
        self._concerns = concerns
        self._unknown_method_concerns = unknown_method_concerns
        self._handlers: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler of a method with what surrounds it, or one that raises what an interceptor has raised."""
        method = handler_call_details.method
        if method.startswith(INFRASTRUCTURE):
            return await continuation(handler_call_details)
        try:
            handler = await continuation(handler_call_details)
        except Exception as error:  # noqa: BLE001 - it is raised again, within the concerns
            return surround(method, _raising(error), self._concerns)
        if handler is None:
            concerns = self._unknown_method_concerns
            return surround(method, UNKNOWN_METHOD, concerns) if concerns else None
        cached = self._handlers.get(method)
        if cached is None or cached[0] is not handler:
            cached = self._handlers[method] = (handler, surround(method, handler, self._concerns))
        return cached[1]


def _raising(error: Exception) -> Handler:
    async def respond(_requests: AsyncIterator[bytes], _context: CallContext[bytes, bytes]) -> None:
        raise error

    return grpc.stream_stream_rpc_method_handler(respond)


async def _respond_to_unknown_method(_requests: AsyncIterator[bytes], context: CallContext[bytes, bytes]) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


UNKNOWN_METHOD: Handler = grpc.stream_stream_rpc_method_handler(_respond_to_unknown_method)
"""Responds as gRPC does. It fits calls of every arity, because an error has no message."""


def surround(method: str, handler: grpc.RpcMethodHandler[Request, Response], concerns: Sequence[Concern]) -> Handler:
    """A handler that reads its requests, calls the given one within the concerns, and serializes the response."""
    if handler.response_streaming:
        stream = _entry(_apply(concerns, method, _stream_behavior(handler)))
        return grpc.stream_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)
    unary = _entry(_apply(concerns, method, _unary_behavior(handler)))
    return grpc.stream_unary_rpc_method_handler(unary, handler.request_deserializer)


def _apply(
    concerns: Sequence[Concern], method: str, behavior: Behavior[Request, Response]
) -> Behavior[Request, Response]:
    for concern in reversed(concerns):
        behavior = concern(method, behavior)
    return behavior


def _entry(behavior: Behavior[Request, Response]) -> Entry[Request, Response]:
    async def respond(
        _requests: AsyncIterator[Request], servicer_context: grpc.aio.ServicerContext[Request, Response]
    ) -> Response | None:
        context = CallContext(servicer_context)
        response = await behavior(context)
        if context.failed:  # gRPC would try to send the response
            raise asyncio.CancelledError
        return response

    return respond


def _unary_behavior(handler: grpc.RpcMethodHandler[Request, Response]) -> Behavior[Request, Message]:
    # The published types have only synchronous functions, here and below.
    function = cast("UnaryFunction[Request, Response]", handler.stream_unary or handler.unary_unary)
    serialize = handler.response_serializer

    async def respond(context: CallContext[Request, Message]) -> Message | None:
        response = await function(await _first_argument(handler, context), context)
        if context.code_name() != "OK":  # gRPC sends no response with an error
            return None
        message = serialize(response) if serialize else response
        if not isinstance(message, bytes | str | None):  # the types that gRPC accepts
            raise TypeError(f"the handler returned a {type(message).__name__}, not a message")
        return message

    return respond


def _stream_behavior(handler: grpc.RpcMethodHandler[Request, Response]) -> Behavior[Request, Response]:
    function = cast("StreamFunction[Request, Response]", handler.stream_stream or handler.unary_stream)

    async def respond(context: CallContext[Request, Response]) -> None:
        result = function(await _first_argument(handler, context), context)
        if not isinstance(result, AsyncGeneratorType):
            await result
            return
        async with aclosing(result):
            async for response in result:
                await context.write(response)

    return respond


async def _first_argument(
    handler: grpc.RpcMethodHandler[Request, T], context: CallContext[Request, Response]
) -> Request | CallContext[Request, Response]:
    if handler.request_streaming:
        context.admit(streams=True)
        return context
    request = await context.read()
    if request is grpc.aio.EOF:  # "request cardinality violation" in gRPC's table of statuses
        raise Unimplemented("this method requires one request; the client sent none")
    context.admit(streams=handler.response_streaming)
    return request
