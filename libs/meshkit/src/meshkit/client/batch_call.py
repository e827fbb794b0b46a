"""One batch RPC, and what becomes of its members.

The RPC ends no later than its last member wants, and is cancelled when its last member has left. A status that says
something about the server or the connection is the outcome of each member, which is not asked again: that would
multiply the load when it is highest. A status that one member alone may have caused (`ABOUT_ONE_MEMBER`), and a
response that does not answer its request, tell nothing about the others, so each is asked one by one.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import grpc

from meshkit.client.batch_traces import BatchTrace
from meshkit.errors import DeadlineExceeded, describe
from meshkit.status import read_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from meshkit.client.batch_traces import MemberTrace
    from meshkit.client.deadline_timer import DeadlineTimer
    from meshkit.errors import ServiceError

Request = TypeVar("Request")
Response = TypeVar("Response")

log = logging.getLogger("meshkit.client")

ABOUT_ONE_MEMBER = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
"""The statuses of a batch after which its members are asked one by one."""

ALONE: Final = object()
"""The outcome of a member that has to make its own call, because it is the only one."""

ONE_BY_ONE: Final = object()
"""The outcome of a member that has to make its own call, because its batch failed."""


@dataclass(frozen=True)
class BatchMethod(Generic[Request, Response]):
    """How the lookups of one method travel as one call of another, whose messages nothing else needs to know.

    Attributes:
        name: the full name of the lookup's method, such as `aiomesh.pricing.v1.PricingService/GetPrice`.
        single: starts the call of one lookup.
        batch: starts the call of many, up to `MAX_MEMBERS`.
        join: the request of the batch.
        split: the response or the error of each request, in their order. Raises any exception if the response of the
            batch does not answer them.
        key: what the lookups of one batch have in common, such as a currency.
    """

    name: str
    single: Callable[..., Awaitable[Response]]
    batch: Callable[..., Awaitable[Any]]
    join: Callable[[Sequence[Request]], Any]
    split: Callable[[Any, Sequence[Request]], Sequence[Response | ServiceError]]
    key: Callable[[Request], Hashable] = lambda _request: None


class Batching(Protocol):
    """Makes the calls of a method, together where possible."""

    def __call__(self, method: BatchMethod[Request, Response], /) -> Callable[[Request], Awaitable[Response]]:
        """The calls of this method."""
        ...


class Place(Protocol[Request]):
    """Where a member is: it waits in a queue, or is part of a call."""

    def discard(self, member: Member[Request], /) -> None:
        """Removes the member, which is finished or has left."""
        ...


class Member(Generic[Request]):
    """One lookup.

    Args:
        request: that of the single call.
        timeout: seconds until its deadline; infinite without one.
        trace: its span.
        place: where it is.
        timer: ends it at its deadline.

    Attributes:
        outcome: its response, `ALONE` or `ONE_BY_ONE`, or its error.
    """

    __slots__ = ("_timer", "deadline", "outcome", "place", "request", "trace")

    def __init__(
        self, request: Request, timeout: float, trace: MemberTrace, place: Place[Request], timer: DeadlineTimer
    ) -> None:
        loop = asyncio.get_running_loop()
        self.request = request
        self.trace = trace
        self.place = place
        self.outcome: asyncio.Future[Any] = loop.create_future()  # a response, or one of two other objects
        self.deadline = loop.time() + timeout
        self._timer = timer
        timer.add(self)

    def timeout(self) -> float | None:
        """Seconds until the deadline, for a gRPC call; None without one."""
        return timeout_until(self.deadline)

    def leave_deadline(self) -> None:
        """Leaves the deadline to the call."""
        self._timer.discard(self)

    def finish(self, outcome: object) -> None:
        """Sets the outcome, unless the member has left."""
        if self.outcome.done():
            return
        self.leave_deadline()
        if isinstance(outcome, BaseException):
            self.outcome.set_exception(outcome)
        else:
            self.outcome.set_result(outcome)

    def expire(self) -> None:
        """Ends the member, because its deadline has passed."""
        self.finish(DeadlineExceeded("the deadline passed before the response"))


def timeout_until(deadline: float) -> float | None:
    """Seconds until a time of the event loop's clock, for a gRPC call; None if that is infinite."""
    return None if deadline == math.inf else deadline - asyncio.get_running_loop().time()


class BatchCall(Generic[Request, Response]):
    """The RPC of several members.

    Args:
        method: what to call.
        members: at least two.
        when_done: is called once the RPC has ended and its members have their outcomes.
    """

    def __init__(
        self,
        method: BatchMethod[Request, Response],
        members: Sequence[Member[Request]],
        when_done: Callable[[BatchCall[Request, Response]], None],
    ) -> None:
        self._method = method
        self._members: Sequence[Member[Request]] = members
        self._requests = [member.request for member in members]
        self._present = set(members)
        self._when_done = when_done
        self._deadline = max(member.deadline for member in members)
        for member in members:
            member.place = self
            if member.deadline == self._deadline:
                member.leave_deadline()  # the RPC ends this one, with the status of its own deadline
        self._trace = BatchTrace([member.trace for member in members])
        context = self._trace.run_context()
        self._task = asyncio.get_running_loop().create_task(self._call(), context=context)
        self._task.add_done_callback(self._finish)

    def discard(self, member: Member[Request]) -> None:
        """Removes a member; the last one that leaves cancels the RPC."""
        self._present.discard(member)
        if not self._present:
            self._task.cancel()

    async def _call(self) -> Sequence[Response | ServiceError]:
        """The response or the error of each member."""
        response = await self._method.batch(
            self._method.join(self._requests),
            timeout=timeout_until(self._deadline),
            metadata=self._trace.metadata,
        )
        outcomes = self._method.split(response, self._requests)
        if len(outcomes) != len(self._requests):
            raise ValueError(f"{len(outcomes)} responses to {len(self._requests)} requests")
        return outcomes

    def _finish(self, task: asyncio.Task[Sequence[Response | ServiceError]]) -> None:
        for member, outcome in zip(self._members, self._outcomes(task), strict=True):
            member.finish(outcome)
        self._members = ()  # which refer to this object: nothing is left to the garbage collector
        self._when_done(self)

    def _outcomes(self, task: asyncio.Task[Sequence[Response | ServiceError]]) -> Sequence[object]:
        if task.cancelled():  # by the last member, or by the channel, which is being closed
            return [_cancelled() for _ in self._members]
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, grpc.aio.AioRpcError) and error.code() not in ABOUT_ONE_MEMBER:
            return [_copy(error) for _ in self._members]
        reason = read_error(error) if isinstance(error, grpc.aio.AioRpcError) else error
        log.info("%d calls of %s are made one by one: %s", len(self._members), self._method.name, describe(reason))
        return [ONE_BY_ONE] * len(self._members)


def _cancelled() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata(), "the call was cancelled"
    )


def _copy(error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
    """The same failure, because each member raises its own."""
    return grpc.aio.AioRpcError(
        error.code(), error.initial_metadata(), error.trailing_metadata(), error.details(), error.debug_error_string()
    )
