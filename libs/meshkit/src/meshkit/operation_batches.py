"""Frees the native memory of a call's batches, however they end.

gRPC's core runs the operations of a call in batches, such as "send metadata and message, receive the response and the
status". grpc.aio's `execute_batch` allocates an array of the operations and copies of what is sent, and frees them and
what was received after its `await`. So it leaks them if the batch fails, or if the task that waits is cancelled: 1.2 KB
for each unary call that its client cancels, 0.1 to 0.7 KB for each stream, 0.1 KB or more for each RPC that a server
finds cancelled (measured with grpcio 1.82.3; https://github.com/grpc/grpc/issues/43360, open).

Here that `await` is of a future that is never cancelled and never fails, while the caller waits for another future. The
end of the batch resumes gRPC's coroutine, which frees the memory, and then the caller. Delete this module when the
lowest supported version of grpcio frees its batches.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from grpc._cython import cygrpc  # type: ignore[attr-defined] # the published types lack it

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_execute_batch = cygrpc.execute_batch  # pyright: ignore[reportAttributeAccessIssue]


def free_batches() -> None:
    """Replaces grpc.aio's `execute_batch`, for all channels and servers of the process."""
    cygrpc.execute_batch = execute_batch  # pyright: ignore[reportAttributeAccessIssue]


async def execute_batch(call: object, operations: tuple[object, ...], loop: asyncio.AbstractEventLoop) -> None:
    """Runs a batch of a call. Raises gRPC's ExecuteBatchError if it fails."""
    await _Batch(call, operations, loop).ended


class _Batch:
    """A running batch. To gRPC's coroutine it is both the event loop and the future that this loop creates.

    Attributes:
        ended: the caller's future, which may be cancelled.
    """

    __slots__ = ("_loop", "_steps", "ended")

    def __init__(self, call: object, operations: tuple[object, ...], loop: asyncio.AbstractEventLoop) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._steps = _execute_batch(call, operations, self).__await__()
        next(self._steps)  # starts the batch

    def create_future(self) -> Self:
        """The future that gRPC's coroutine waits for."""
        return self

    def call_soon_threadsafe(self, callback: Callable[..., None], *arguments: object) -> None:
        """Runs gRPC's callback in the batch's loop. gRPC calls this in any loop that receives the end of the batch."""
        if asyncio.get_running_loop() is self._loop:
            callback(*arguments)
        else:
            self._loop.call_soon_threadsafe(callback, *arguments)

    def __await__(self) -> Generator[None, None, None]:
        yield

    def cancelled(self) -> bool:
        """Never, so gRPC sets the result whether or not somebody waits."""
        return False

    def set_result(self, _result: None, error: Exception | None = None) -> None:
        """Lets gRPC's coroutine free the memory and finish, then resumes the caller."""
        try:
            next(self._steps, None)
        except Exception as failure:  # noqa: BLE001 - what was received cannot be read
            error = failure
        if self.ended.done():
            return
        if error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    def set_exception(self, error: Exception) -> None:
        """As `set_result`; the caller gets the error."""
        self.set_result(None, error)
