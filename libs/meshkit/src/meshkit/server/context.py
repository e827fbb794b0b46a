"""The context of one RPC, as its handler and what surrounds that see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, cast

import grpc

from meshkit.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # of a servicer, whose methods have messages of their own

Metadata: TypeAlias = "grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]"


class CallContext(Generic[Request, Response]):
    """The context of one RPC, and its requests, where they are many. A client that disconnects cancels the handler.

    In grpc.aio that comes as the end of the requests, or as the failure of what is sent, and only then as a
    cancellation; a handler would take half of an upload for the whole. What is not defined here is gRPC's own.

    Attributes:
        failed: whether something could not be sent or read.
    """

    def __init__(self, context: grpc.aio.ServicerContext[Request, Response]) -> None:
        self._context = context
        self.failed = False
        self._local_cancellations = 0

    def __getattr__(self, name: str) -> Any:  # whatever else gRPC's context has, for handlers
        return getattr(self._context, name)

    def peer(self) -> str:
        """The address of the client, as gRPC writes it."""
        return self._context.peer()

    def invocation_metadata(self) -> grpc.aio.Metadata | None:
        """What the client sent beside its requests."""
        return self._context.invocation_metadata()

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None without one."""
        return self._context.time_remaining()

    def done(self) -> bool:
        """Whether the RPC has its status."""
        return self._context.done()

    async def read(self) -> Request:
        """The next request, or EOF.

        Raises:
            Internal: it cannot be parsed, as "Error parsing request proto" in gRPC's table of statuses.
        """
        try:
            request = await self._perform(self._context.read())
        except grpc.aio.BaseError:
            raise
        except Exception as error:  # the deserializer's
            raise Internal("the request cannot be parsed") from error
        if request is grpc.aio.EOF:
            await self._perform(self._context.read())  # comes after the notice that cancels, if there is one
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
        self._local_cancellations = _cancellations()  # none was the client's

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
        except grpc.aio.BaseError:  # it fails, or the server has stopped
            self.failed = True
            raise asyncio.CancelledError from None

    def is_cancelled(self) -> bool:
        """Whether the client has disconnected or its time is up, as far as this task knows."""
        return self.failed or _cancellations() > self._local_cancellations

    async def is_lost(self) -> bool:
        """Whether it has, though the handler has swallowed that and returned."""
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
        # The published type is that of a code which the handler set; before, it is 0 or None, and it may set a number.
        code = cast("grpc.StatusCode | int | None", self._context.code())
        return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code or 0, "UNKNOWN")


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
