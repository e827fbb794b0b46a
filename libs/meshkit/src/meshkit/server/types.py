"""The types of the server side's callables.

Every handler, of any arity and form, becomes a behavior (`meshkit.server.handlers`). A concern surrounds a behavior
with its own, so an RPC passes through nested coroutines:
`meshkit.server.build.concerns` is the list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from meshkit.server.context import CallContext, Request, Response

if TYPE_CHECKING:
    import grpc

Behavior: TypeAlias = Callable[[CallContext[Request, Response]], Awaitable[Response | None]]
"""Responds to one RPC: returns the response, or writes a response stream to the context."""

Message: TypeAlias = bytes | str
"""A serialized response, in the types that gRPC accepts."""

UnaryFunction: TypeAlias = Callable[
    [Request | CallContext[Request, Message], CallContext[Request, Message]], Awaitable[Response]
]
"""The function of a handler with one response: takes the request, or the iterator of requests, and the context."""

StreamFunction: TypeAlias = Callable[
    [Request | CallContext[Request, Response], CallContext[Request, Response]],
    Awaitable[None] | AsyncGeneratorType[Response, None],
]
"""The same for a handler with many responses, which it yields or writes to the context."""

Entry: TypeAlias = """Callable[
    [AsyncIterator[Request], grpc.aio.ServicerContext[Request, Response]], Awaitable[Response | None]
]"""
"""The function of a handler for gRPC: runs a behavior on gRPC's own context."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # each method of a server has its own messages


class Concern(Protocol):
    """Surrounds a behavior with something that concerns all RPCs."""

    def __call__(self, method: str, behavior: Behavior[Request, Response], /) -> Behavior[Request, Response]:
        """A behavior around that of `method`, the full name with the leading slash."""
        ...
