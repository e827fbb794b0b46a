"""The types of the client side's callables.

A multicallable starts the calls of one method. A concern surrounds it with its own, so a call passes through nested
functions: `meshkit.client.channel.concerns` is the list. These are not gRPC's interceptors, because gRPC runs those in
a task, which may be cancelled before it starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypedDict, TypeVar, Unpack

if TYPE_CHECKING:
    import grpc

Request = TypeVar("Request")
Response = TypeVar("Response")
Call = TypeVar("Call", bound="grpc.aio.Call")

Request_contra = TypeVar("Request_contra", contravariant=True)
Call_co = TypeVar("Call_co", bound="grpc.aio.Call", covariant=True)

Serializer: TypeAlias = Callable[[Request], bytes]
Deserializer: TypeAlias = Callable[[bytes], Response]

Requests: TypeAlias = AsyncIterator[Request] | Iterator[Request] | None
"""The requests of a streaming call; None if the caller sends them with `call.write`."""

Metadata: TypeAlias = "grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]"


class CallOptions(TypedDict, total=False):
    """gRPC's keywords for one call."""

    timeout: float | None
    metadata: Metadata | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class Multicallable(Protocol[Request_contra, Call_co]):
    """Starts a call: takes the request, or the source of a request stream."""

    def __call__(self, request: Request_contra, /, **options: Unpack[CallOptions]) -> Call_co:
        """The started call."""
        ...


class Concern(Protocol):
    """Surrounds a multicallable of any arity with something that concerns all calls."""

    def __call__(self, method: str, multicallable: Multicallable[Request, Call], /) -> Multicallable[Request, Call]:
        """A multicallable around that of `method`, the full name with the leading slash."""
        ...


Connect: TypeAlias = "Callable[[], grpc.aio.Channel]"
"""Opens a plain gRPC channel."""

Continuation: TypeAlias = "Callable[[grpc.aio.ClientCallDetails, Request], Awaitable[Call]]"
"""The continuation that gRPC passes to an interceptor."""
