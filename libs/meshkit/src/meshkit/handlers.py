"""Wraps the handlers of a grpc.aio server, whatever their arity and form.

A handler that streams may be an async generator or a coroutine that calls `context.write`; grpc.aio takes both. Here
every handler becomes a coroutine, so that a concern (tracing, errors, deadlines) is written once, as a decorator
of coroutines. It also ends a generator inside the task of its RPC: grpc.aio leaves a generator of a cancelled call to
the garbage collector, where context variables can no longer be reset.
"""

from __future__ import annotations

import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behavior: TypeAlias = "Callable[[Any, Context], Awaitable[Any]]"
"""What answers one RPC: takes the request (or the iterator of requests) and the context."""

Handler: TypeAlias = Any  # a grpc.RpcMethodHandler; its published types know synchronous behaviors only

UNTRACED = "/grpc."
"""The prefix of the methods of health checking and reflection: no spans, no deadline, no access log."""


class HandlerInterceptor(grpc.aio.ServerInterceptor):
    """Puts a decorator around the handler of every method, but those of health checking and reflection.

    Args:
        decorate: called once for each method, with its full name (slash included) and its behavior.
        unserved: makes the handler of a method that nobody serves, from its name; None leaves it to gRPC.
    """

    def __init__(
        self, decorate: Callable[[str, Behavior], Behavior], unserved: Callable[[str], Handler] = lambda _: None
    ) -> None:
        self._decorate = decorate
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
            known = self._wrapped[method] = (handler, wrap(handler, lambda inner: self._decorate(method, inner)))
        return known[1]


def wrap(handler: Handler, decorate: Callable[[Behavior], Behavior]) -> Handler:
    """A handler of the same arity whose behavior is the decorated one, as a coroutine function."""
    make, behavior = _parts(handler)
    return make(
        decorate(_as_coroutine(behavior)),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _parts(handler: Handler) -> tuple[Callable[..., Handler], Callable[..., Any]]:
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler, handler.unary_unary
        case False, True:
            return grpc.unary_stream_rpc_method_handler, handler.unary_stream
        case True, False:
            return grpc.stream_unary_rpc_method_handler, handler.stream_unary
        case _:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream


def _as_coroutine(behavior: Callable[..., Any]) -> Behavior:
    if not inspect.isasyncgenfunction(behavior):
        return behavior

    async def written(request: object, context: Context) -> None:
        async with aclosing(cast("AsyncGenerator[Any]", behavior(request, context))) as responses:
            async for response in responses:
                await context.write(response)

    return written
