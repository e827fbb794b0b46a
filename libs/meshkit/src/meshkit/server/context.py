"""The context of one RPC, for its handler and the concerns around it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar, cast

import grpc

from meshkit.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # for a servicer, whose methods have different messages

Metadata: TypeAlias = "grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]"


class Admit(Protocol):
    """Admits or refuses a call, see `CallContext.admit`."""

    def __call__(self, *, streams: bool) -> None:
        """Raises a ServiceError if the call is refused."""
        ...


class CallContext(Generic[Request, Response]):
    """The context of one RPC, and the iterator of its requests. A client that disconnects cancels the handler.

    In grpc.aio a disconnect first ends the requests or fails a write, and only then cancels the handler, which would
    mistake half of an upload for the whole. Other attributes are those of gRPC's context.

    Attributes:
        failed: whether a read or a write failed.
        admit: is called when the request is here, or at once if requests are streamed, and before the handler. The
            argument is whether either side streams. It may raise a ServiceError; see `meshkit.server.admission`.
    """

    def __init__(self, context: grpc.aio.ServicerContext[Request, Response]) -> None:
        self._context = context
        self.failed = False
        self.admit: Admit = _admit_all
        self._local_cancellations = 0

    def __getattr__(self, name: str) -> Any:  # all else that gRPC's context has
        return getattr(self._context, name)

    def peer(self) -> str:
        """The address of the client in gRPC's notation."""
        return self._context.peer()

    def invocation_metadata(self) -> grpc.aio.Metadata | None:
        """The metadata that the client sent."""
        return self._context.invocation_metadata()

    def trailing_metadata(self) -> grpc.aio.Metadata | None:
        """The metadata that the handler has set for the end of the call."""
        return self._context.trailing_metadata()

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None without one."""
        return self._context.time_remaining()

    def done(self) -> bool:
        """Whether the RPC has a status."""
        return self._context.done()

    async def read(self) -> Request:
        """The next request, or EOF.

        Raises:
            Internal: the request cannot be parsed ("Error parsing request proto" in gRPC's table of statuses).
        """
        try:
            request = await self._perform(self._context.read())
        except grpc.aio.BaseError:
            raise
        except Exception as error:  # of the deserializer
            raise Internal("the request cannot be parsed") from error
        if request is grpc.aio.EOF:
            await self._perform(self._context.read())  # returns after a pending cancellation is delivered
        return request

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Request:
        if (request := await self.read()) is grpc.aio.EOF:
            raise StopAsyncIteration
        return request

    async def write(self, response: Response) -> None:
        """Sends a response."""
        await self._perform(self._context.write(response))
        self._local_cancellations = _cancellations()  # the client caused none of them

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """Ends the call with a status: raises AbortError."""
        await self._perform(self._context.abort(code, details, trailing_metadata))

    async def abort_with_status(self, status: grpc.Status) -> None:
        """Ends the call with a status: raises AbortError."""
        await self._perform(self._context.abort_with_status(status))

    async def _perform(self, operation: Awaitable[T]) -> T:
        try:
            return await operation
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except grpc.aio.BaseError:  # the operation fails, or the server has stopped
            self.failed = True
            raise asyncio.CancelledError from None

    def is_cancelled(self) -> bool:
        """Whether this task knows that the client has disconnected or its deadline has passed."""
        return self.failed or _cancellations() > self._local_cancellations

    async def is_lost(self) -> bool:
        """The same after a handler that ignored the cancellation and returned."""
        if self._context.done() or not self.is_cancelled():
            return self.failed
        try:  # before Python 3.13 a failed TaskGroup may leave its own cancellation in the count
            await self._context.send_initial_metadata(())
        except grpc.aio.UsageError:  # already sent
            return True
        except grpc.aio.BaseError:
            self.failed = True
        return self.failed

    def code_name(self) -> str:
        """The name of the RPC's status code: OK unless the handler set another or aborted with one."""
        # The published type fits only a code set by the handler. It may also be a number; before, it is 0 or None.
        code = cast("grpc.StatusCode | int | None", self._context.code())
        return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code or 0, "UNKNOWN")


def _admit_all(*, streams: bool) -> None:
    """Refuses no call."""


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
