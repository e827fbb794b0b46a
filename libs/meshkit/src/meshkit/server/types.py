"""The callables of the server side, named once.

Every handler becomes a behavior, whatever its arity and form (`meshkit.server.handlers`). A concern surrounds a
behavior with one of its own, so what an RPC passes through is coroutines within coroutines:
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
"""Responds to one RPC: returns the response, or writes all of a response stream to the context."""

Message: TypeAlias = bytes | str
"""A response that is serialized, as gRPC takes it."""

UnaryFunction: TypeAlias = Callable[
    [Request | CallContext[Request, Message], CallContext[Request, Message]], Awaitable[Response]
]
"""The function of a handler with one response: takes the request, or the iterator of requests, and the context."""

StreamFunction: TypeAlias = Callable[
    [Request | CallContext[Request, Response], CallContext[Request, Response]],
    Awaitable[None] | AsyncGeneratorType[Response, None],
]
"""The same of a handler with many responses, which it yields or writes to the context."""

Entry: TypeAlias = """Callable[
    [AsyncIterator[Request], grpc.aio.ServicerContext[Request, Response]], Awaitable[Response | None]
]"""
"""The function of the handler that gRPC gets: a behavior, for gRPC's own context."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # each method of a server has messages of its own


class Concern(Protocol):
    """Surrounds a behavior with something that concerns all RPCs."""

    def __call__(self, method: str, behavior: Behavior[Request, Response], /) -> Behavior[Request, Response]:
        """A behavior around that of a method, which is its full name with the leading slash."""
        ...
