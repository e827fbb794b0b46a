"""Sends lookups together, because a call costs far more than what it asks for.

The lookups of one method and key (`BatchMethod`), such as all prices in one currency, form a queue:

- A lookup is sent at the end of the current turn of the event loop, with all others of that turn, so nothing waits
  while idle.
- While a call is in flight, lookups wait until it has ended, and for `GATHER_TURNS` more turns: in these, callers that
  got their response from that call and ask again at once join those that wait. Else they would travel by turns, in
  calls of half the size.
- A call that takes longer than `LATE_SECONDS` is late: it holds nothing back any longer, whatever becomes of it. When
  these are over, `LATE_TURNS` turns pass first, because if this process was busy, the response may already be here.
- A call has at most `MAX_MEMBERS` members; the others wait for the next one.
- Of one method, at most `max_waiting` lookups wait. Further ones are refused: RESOURCE_EXHAUSTED with RetryInfo.

A lookup that is the only one is the plain call, made in its own task. Several are one batch RPC in a context of its own
(`meshkit.client.batch_call`). Each member still ends at its own deadline and with its own task, and leaves its own span
(`meshkit.client.batch_traces`).

A call whose metadata is more than its own `traceparent` is made at once and alone: trace state, baggage and what the
caller passes differ between members. An interceptor of the channel sees the batch, in no member's context.
"""

from __future__ import annotations

import asyncio
import math
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Generic, cast
from weakref import WeakValueDictionary

import grpc
from opentelemetry import context as otel_context
from opentelemetry.baggage import get_all
from opentelemetry.propagate import get_global_textmap, inject

from meshkit.batch_metadata import MAX_MEMBERS
from meshkit.client.batch_call import ALONE, ONE_BY_ONE, BatchCall, Member, Request, Response
from meshkit.client.batch_traces import MemberTrace
from meshkit.client.deadline_timer import DeadlineTimer
from meshkit.current_span import current_span_context
from meshkit.deadline import call_timeout
from meshkit.errors import DeadlineExceeded, ResourceExhausted, ServiceError, mapping_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from typing import Unpack

    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Tracer

    from meshkit.client.batch_call import BatchMethod
    from meshkit.client.types import CallOptions

LATE_SECONDS = 0.005
"""Seconds after which a call in flight holds back no other, and the most that lookups wait after one has ended."""

LATE_TURNS = 4
"""Turns of the event loop in which a response that has arrived reaches its callers."""

GATHER_TURNS = 6
"""Turns of the event loop after a call has ended, until what waits is sent. A client on the same machine needs five for
its response, its next request, and the two lookups of that."""

MAX_ONE_BY_ONE = 4
"""The most calls at a time that are made one by one because their batch failed, of one method."""

MAX_WAITING = 1000
"""The most waiting lookups of one method, by default."""

RETRY_AFTER = 1.0
"""Seconds until a refused caller should retry."""

OWN_TRACE = {"traceparent"}
"""The metadata of a call that may travel with others."""

W3C = {"traceparent", "tracestate", "baggage"}
"""The metadata of W3C Trace Context and W3C Baggage."""


class BatchingCalls(Generic[Request, Response]):
    """Makes the calls of one method, together where possible. It is called like a method of a stub.

    Args:
        method: how the calls travel together.
        tracer: creates the spans of the members.
        max_waiting: the most calls that wait to be sent.
        late_seconds: how long a call in flight holds back others, and at most after its end.
    """

    def __init__(
        self,
        method: BatchMethod[Request, Response],
        tracer: Tracer,
        max_waiting: int = MAX_WAITING,
        *,
        late_seconds: float = LATE_SECONDS,
    ) -> None:
        self._method = method
        self._tracer = tracer
        self._max_waiting = max_waiting
        self._late_seconds = late_seconds
        self._waiting: set[Member[Request]] = set()
        self._queues: WeakValueDictionary[Hashable, _Queue[Request, Response]] = WeakValueDictionary()
        self._timer = DeadlineTimer()
        self._one_by_one = asyncio.Semaphore(MAX_ONE_BY_ONE)

    async def __call__(self, request: Request, /, **options: Unpack[CallOptions]) -> Response:
        """The response to one request.

        Raises:
            AioRpcError: the RPC failed, its own or that of its batch.
            ServiceError: the response of the batch has an error for this request; or it was not sent, because too many
                wait (ResourceExhausted) or its deadline passed before (DeadlineExceeded).
        """
        timeout = call_timeout(math.inf)
        context = otel_context.get_current()
        if options or timeout <= 0 or not _has_only_own_trace(context):
            return await self._method.single(request, **options)
        member = self._enqueue(request, timeout, MemberTrace(context, self._tracer, self._method.name))
        try:
            outcome = await self._outcome(member)
            if outcome is ALONE:
                return await self._method.single(request, timeout=member.timeout())
            return cast("Response", outcome)  # `_outcome` returns nothing else
        finally:
            member.place.discard(member)

    def _enqueue(self, request: Request, timeout: float, trace: MemberTrace) -> Member[Request]:
        key = self._method.key(request)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(self._method, self._waiting, self._late_seconds)
        member = Member(request, timeout, trace, queue, self._timer)
        if len(self._waiting) < self._max_waiting:
            queue.add(member)
        else:
            member.finish(ResourceExhausted("too many calls wait to be sent; retry later", retry_after=RETRY_AFTER))
        return member

    async def _outcome(self, member: Member[Request]) -> object:
        """The member's response, or `ALONE`. Otherwise its span ends here."""
        try:
            outcome = await member.outcome
            if outcome is ONE_BY_ONE:
                outcome = await self._call_in_turn(member)
        except BaseException as error:
            member.leave_deadline()
            member.trace.end(*_status_of(error))
            raise
        if outcome is not ALONE:
            member.trace.end("OK")
        return outcome

    async def _call_in_turn(self, member: Member[Request]) -> Response:
        """Makes the member's own call, when fewer than `MAX_ONE_BY_ONE` others are in flight."""
        try:
            async with asyncio.timeout_at(None if member.deadline == math.inf else member.deadline):
                await self._one_by_one.acquire()
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the call was sent") from None
        token = otel_context.attach(member.trace.context())
        try:
            return await self._method.single(member.request, timeout=member.timeout())
        finally:
            otel_context.detach(token)
            self._one_by_one.release()


class _Queue(Generic[Request, Response]):
    """The waiting lookups of one key, and the call in flight that holds them back.

    It exists while something refers to it: a member, a call in flight, or a timer.

    Args:
        method: what to call.
        all_waiting: the waiting lookups of all keys, which this object keeps current.
        late_seconds: how long a call in flight holds back others, and at most after its end.
    """

    def __init__(
        self, method: BatchMethod[Request, Response], all_waiting: set[Member[Request]], late_seconds: float
    ) -> None:
        self._method = method
        self._all_waiting = all_waiting
        self._late_seconds = late_seconds
        self._waiting: dict[Member[Request], None] = {}
        self._send_handle: asyncio.Handle | None = None
        self._in_flight: Member[Request] | BatchCall[Request, Response] | None = None
        self._late: asyncio.TimerHandle | None = None

    def add(self, member: Member[Request]) -> None:
        """Adds a lookup, which is sent at the end of the turn, or some turns after the call in flight has ended."""
        self._waiting[member] = None
        self._all_waiting.add(member)
        if self._in_flight is None:
            self._send_soon()

    def discard(self, member: Member[Request]) -> None:
        """Removes a lookup that has left before it was sent, or whose own call has ended."""
        if member in self._waiting:
            self._remove([member])
        else:
            self._end(member)

    def _remove(self, members: Sequence[Member[Request]]) -> None:
        for member in members:
            del self._waiting[member]
        self._all_waiting.difference_update(members)

    def _send_soon(self) -> None:
        if self._send_handle is None:
            self._send_handle = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Sends what waits, as one call."""
        self._send_handle = None
        members = list(islice((member for member in self._waiting if not member.outcome.done()), MAX_MEMBERS))
        if not members:
            return
        self._remove(members)
        self._in_flight = BatchCall(self._method, members, self._end) if len(members) > 1 else members[0]
        self._late = asyncio.get_running_loop().call_later(self._late_seconds, self._pass, self._in_flight, LATE_TURNS)
        if len(members) == 1:
            members[0].finish(ALONE)

    def _end(self, call: Member[Request] | BatchCall[Request, Response]) -> None:
        """Sends what waits for this call, which has ended, after some turns."""
        if self._in_flight is not call:
            return
        self._in_flight = None
        if self._late:
            self._late.cancel()
        if self._waiting:
            self._gather(GATHER_TURNS, asyncio.get_running_loop().time() + self._late_seconds)

    def _gather(self, turns: int, until: float) -> None:
        """Sends what waits after some turns, or at `until`."""
        loop = asyncio.get_running_loop()
        if turns and loop.time() < until:
            self._send_handle = loop.call_soon(self._gather, turns - 1, until)
        else:
            self._send()

    def _pass(self, call: Member[Request] | BatchCall[Request, Response], turns: int) -> None:
        """Sends what waits for this call, which is late unless it ends within some turns."""
        if self._in_flight is not call:
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._pass, call, turns - 1)
            return
        self._in_flight = None
        if self._waiting:
            self._send_soon()


def _has_only_own_trace(context: Context) -> bool:
    """Whether a call in this context has no metadata but its `traceparent`, as the propagators in force write it."""
    if _is_w3c(get_global_textmap()):  # so that is seen without writing it
        _, _, _, _, trace_state, is_valid = current_span_context(context)
        has_only_span = is_valid and len(context) == 1
        return not trace_state and (has_only_span or not get_all(context))
    carrier: dict[str, str] = {}
    inject(carrier, context)
    return carrier.keys() <= OWN_TRACE


@lru_cache(maxsize=1)
def _is_w3c(propagator: TextMapPropagator) -> bool:
    return propagator.fields <= W3C


def _status_of(error: BaseException) -> tuple[str, str | None]:
    """The name of the gRPC status code of a lookup's failure, and its message."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name, error.details()
    if isinstance(error, ServiceError):
        return mapping_of(error).code, error.message
    return ("CANCELLED" if isinstance(error, asyncio.CancelledError) else "UNKNOWN"), None
