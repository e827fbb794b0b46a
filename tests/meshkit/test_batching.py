"""Which calls travel together: the rules of `meshkit.client.batching`."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import Any

import grpc
import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from meshkit.batch_metadata import MAX_MEMBERS
from meshkit.client.batch_call import BatchMethod
from meshkit.client.batching import GATHER_TURNS, BatchingCalls
from meshkit.client.channel import open_channel
from meshkit.deadline import budget
from meshkit.errors import DeadlineExceeded, ResourceExhausted
from meshkit.testing import SpanCapture
from tests.meshkit.shelf import SERVICE, Library, Shelf, library, method, serve

BOOKS = [b"emma", b"ulysses", b"walden"]


def sizes(books: Library) -> list[int]:
    return [len(titles) for _, titles in books.shelf.calls]


async def test_lookups_of_one_turn_are_one_batch_and_each_gets_its_own_response() -> None:
    async with library() as books:
        assert await asyncio.gather(*books.ask(*BOOKS)) == [b"EMMA", b"ULYSSES", b"WALDEN"]
    assert books.shelf.calls == [("BatchGet", BOOKS)]


async def test_equal_lookups_may_share_a_batch() -> None:
    async with library() as books:
        assert await asyncio.gather(*books.ask(b"emma", b"emma")) == [b"EMMA", b"EMMA"]
    assert books.shelf.calls == [("BatchGet", [b"emma", b"emma"])]


async def test_a_lookup_alone_is_the_plain_call_at_once() -> None:
    async with library() as books:
        for title in BOOKS:
            assert await books.get(title) == title.upper()
    assert books.shelf.calls == [("Get", [title]) for title in BOOKS]


async def test_lookups_wait_for_the_call_in_flight_and_then_travel_together() -> None:
    async with library(open_=False) as books:
        first = await books.first_in_flight()
        waiting = books.ask(b"emma")
        await books.settle()
        waiting += books.ask(b"walden")
        await books.settle()
        assert books.shelf.calls == [("Get", [b"first"])]
        books.shelf.open.set()
        assert await asyncio.gather(first, *waiting) == [b"FIRST", b"EMMA", b"WALDEN"]
    assert books.shelf.calls == [("Get", [b"first"]), ("BatchGet", [b"emma", b"walden"])]


async def test_a_batch_in_flight_holds_back_lookups_too() -> None:
    async with library(open_=False) as books:
        batch = books.ask(*BOOKS)
        await books.shelf.until_called(1)
        waiting = books.ask(b"emma")
        await books.settle()
        assert sizes(books) == [3]
        books.shelf.open.set()
        await asyncio.gather(*batch, *waiting)
    assert sizes(books) == [3, 1]


@pytest.mark.parametrize("turns", [0, GATHER_TURNS // 2])
async def test_callers_that_ask_again_soon_are_in_the_next_batch_with_those_that_waited(turns: int) -> None:
    async with library(open_=False) as books:

        async def ask_twice(title: bytes) -> None:
            await books.get(title)
            for _ in range(turns):
                await asyncio.sleep(0)
            await books.get(title)

        again = [asyncio.create_task(ask_twice(title)) for title in BOOKS]
        await books.shelf.until_called(1)
        waiting = books.ask(b"emma", b"walden")
        await books.settle()
        books.shelf.open.set()
        await asyncio.gather(*again, *waiting)
    assert sizes(books) == [3, 5]


@pytest.mark.parametrize("titles", [[b"first"], BOOKS], ids=["one", "batch"])
async def test_a_late_call_holds_nothing_back(titles: list[bytes]) -> None:
    async with library(open_=False, late_seconds=0) as books:
        late = books.ask(*titles)
        await books.shelf.until_called(1)
        others = books.ask(b"emma")
        await books.shelf.until_called(2)
        others += books.ask(*BOOKS)
        await books.shelf.until_called(3)
        assert sizes(books) == [len(titles), 1, 3]
        books.shelf.open.set()
        await asyncio.gather(*late, *others)


async def test_a_call_becomes_late_while_others_wait_and_then_they_are_sent() -> None:
    async with library(open_=False, late_seconds=0.001) as books:
        late, waiting = books.ask(b"first"), []
        await asyncio.sleep(0)  # its task has made its lookup
        await asyncio.sleep(0)  # which is in flight
        waiting += books.ask(*BOOKS)
        await books.shelf.until_called(2)
        assert sorted(sizes(books)) == [1, 3]
        books.shelf.open.set()
        await asyncio.gather(*late, *waiting)


async def test_a_response_that_has_arrived_while_the_loop_was_busy_is_not_late() -> None:
    loop, calls = asyncio.get_running_loop(), list[int]()
    first = loop.create_future()

    async def batch(titles: list[bytes], **_options: Any) -> list[bytes]:
        calls.append(len(titles))
        if len(calls) == 1:
            await first
        return titles

    async def ask_twice(title: bytes) -> None:
        await ask(title)
        await ask(title)

    lookups = BatchMethod("Get", single=batch, batch=batch, join=list, split=lambda response, _titles: response)
    ask = BatchingCalls(lookups, SpanCapture("client").telemetry.tracer_provider.get_tracer("test"), late_seconds=0.01)
    again = [asyncio.create_task(ask_twice(title)) for title in BOOKS]
    while not calls:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(ask(b"emma"))
    await asyncio.sleep(0)
    busy_until = time.monotonic() + 0.03
    loop.call_soon_threadsafe(first.set_result, None)
    while time.monotonic() < busy_until:
        pass  # the loop is blocked
    await asyncio.gather(*again, waiting)
    assert calls == [3, 4]


async def test_a_batch_has_at_most_a_hundred_members_and_the_others_wait_for_the_next() -> None:
    titles = [b"%d" % number for number in range(250)]
    async with library() as books:
        assert await asyncio.gather(*books.ask(*titles)) == titles
    assert sizes(books) == [MAX_MEMBERS, MAX_MEMBERS, 50]


async def test_a_lookup_is_refused_while_too_many_wait_and_a_member_that_leaves_makes_room() -> None:
    async with library(open_=False, max_waiting=2) as books:
        first = await books.first_in_flight()
        waiting = books.ask(b"emma", b"walden")
        [refused] = books.ask(b"ulysses")
        with pytest.raises(ResourceExhausted) as error:
            await refused
        assert error.value.retry_after == 1
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        waiting += books.ask(b"emma")
        books.shelf.open.set()
        assert await asyncio.gather(first, *waiting[1:]) == [b"FIRST", b"WALDEN", b"EMMA"]
    assert books.client.spans()[0].attributes == {
        "rpc.response.status_code": "RESOURCE_EXHAUSTED",
        "error.type": "RESOURCE_EXHAUSTED",
    }


def with_baggage() -> otel_context.Context:
    return baggage.set_baggage("user", "ada")


def with_trace_state() -> otel_context.Context:
    parent = SpanContext(1, 2, True, TraceFlags(1), TraceState([("vendor", "x")]))
    return trace.set_span_in_context(NonRecordingSpan(parent))


@pytest.mark.parametrize("context", [with_baggage, with_trace_state])
async def test_calls_with_baggage_or_trace_state_are_made_alone(context: Any) -> None:
    async with library() as books:
        token = otel_context.attach(context())
        tasks = books.ask(*BOOKS)
        otel_context.detach(token)
        assert await asyncio.gather(*tasks, *books.ask(*BOOKS)) == [title.upper() for title in BOOKS] * 2
    assert sorted(sizes(books)) == [1, 1, 1, 3]


async def test_calls_with_options_of_their_own_are_made_alone() -> None:
    async with library() as books:
        await asyncio.gather(*(books.get(title, metadata=(("tenant", "a"),)) for title in BOOKS))
    assert sizes(books) == [1, 1, 1]


async def test_calls_with_nothing_but_their_own_traceparent_travel_together() -> None:
    async with library() as books:
        tracer, tasks = books.client.telemetry.tracer_provider.get_tracer("test"), []
        for title in BOOKS:
            with tracer.start_as_current_span("request"):
                tasks += books.ask(title)
        await asyncio.gather(*tasks)
    assert sizes(books) == [3]


async def test_the_lookups_of_each_key_are_one_batch_and_do_not_wait_for_each_other() -> None:
    async with library(open_=False) as books:
        tracer = books.client.telemetry.tracer_provider.get_tracer("test")
        by_initial = BatchingCalls(method(books.channel, lambda title: title[:1]), tracer, late_seconds=60)
        titles = [b"emma", b"ulysses", b"eugenie", b"utopia"]
        tasks = [asyncio.ensure_future(by_initial(title)) for title in titles]
        await books.shelf.until_called(2)
        assert sorted(books.shelf.calls) == [("BatchGet", [b"emma", b"eugenie"]), ("BatchGet", [b"ulysses", b"utopia"])]
        books.shelf.open.set()
        await asyncio.gather(*tasks)
        assert not by_initial._queues, "a key costs nothing once it has no lookups"


async def test_a_batch_has_the_deadline_of_its_longest_member() -> None:
    async with library() as books:
        tasks = []
        for seconds in (5.0, 9.0, 7.0):
            with budget(seconds):
                tasks += books.ask(b"emma")
        await asyncio.gather(*tasks)
    [left] = books.shelf.time_left
    assert left is not None
    assert 7 < left < 9


async def test_a_member_ends_at_its_own_deadline_and_the_batch_continues() -> None:
    async with library(open_=False) as books:
        with budget(0.1):
            [hasty] = books.ask(b"emma")
        with budget(10):
            [patient] = books.ask(b"walden")
        with pytest.raises(DeadlineExceeded):
            await hasty
        books.shelf.open.set()
        assert await patient == b"WALDEN"
    assert (sizes(books), books.shelf.cancelled) == ([2], 0)


async def test_a_waiting_lookup_ends_at_its_own_deadline_and_is_not_sent() -> None:
    async with library(open_=False) as books:
        first = await books.first_in_flight()
        with budget(0.05):
            [waiting] = books.ask(b"emma")
        with pytest.raises(DeadlineExceeded):
            await waiting
        books.shelf.open.set()
        await first
        await books.settle()
    assert sizes(books) == [1]


async def test_a_lookup_without_time_is_deadline_exceeded() -> None:
    async with library() as books:
        with budget(0.001), pytest.raises(DeadlineExceeded):
            await books.get(b"emma")
    assert books.shelf.calls == []


async def test_a_member_that_is_cancelled_leaves_the_batch_alone_and_the_last_one_cancels_it() -> None:
    async with library(open_=False) as books:
        tasks = books.ask(*BOOKS)
        await books.shelf.until_called(1)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks[:2])
        await books.settle()
        assert books.shelf.cancelled == 0
        tasks[2].cancel()
        await asyncio.wait(tasks)
        while not books.shelf.cancelled:
            await asyncio.sleep(0)
        [waiting] = books.ask(b"emma")
        books.shelf.open.set()
        assert await waiting == b"EMMA", "the cancelled batch holds nothing back"
    assert all(task.cancelled() for task in tasks)


async def test_a_lookup_that_is_cancelled_before_it_is_sent_is_not_sent() -> None:
    async with library() as books:
        tasks = books.ask(*BOOKS)
        await asyncio.sleep(0)  # the tasks have made their lookups
        tasks[1].cancel()
        await asyncio.wait(tasks)
    assert books.shelf.calls == [("BatchGet", [b"emma", b"walden"])]


async def test_all_lookups_may_be_cancelled_before_their_batch_starts() -> None:
    async with library() as books:
        tasks = books.ask(*BOOKS)
        await asyncio.sleep(0)  # the tasks have made their lookups
        await asyncio.sleep(0)  # and the task of the batch exists
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await books.get(b"emma") == b"EMMA"
    assert sizes(books) == [1]


@pytest.mark.parametrize("turns", range(6))
async def test_a_lookup_alone_that_is_cancelled_at_any_time_holds_nothing_back(turns: int) -> None:
    async with library(open_=False) as books:
        [task] = books.ask(b"first")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        books.shelf.open.set()
        assert await books.get(b"emma") == b"EMMA"


USER: ContextVar[str] = ContextVar("user", default="nobody")


class Watch(grpc.aio.UnaryUnaryClientInterceptor):
    """Records the user in whose context each call is made."""

    def __init__(self) -> None:
        self.users: list[str] = []

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.users.append(USER.get())
        return await continuation(client_call_details, request)


async def test_a_batch_runs_in_a_context_of_its_own_and_a_call_alone_in_its_callers() -> None:
    watch = Watch()
    async with library(client_interceptors=[watch]) as books:
        USER.set("ada")
        await books.get(b"emma")
        await asyncio.gather(*books.ask(*BOOKS))
    assert watch.users == ["ada", "nobody"]


async def test_a_channel_makes_calls_travel_together_but_not_with_contribs_interceptors() -> None:
    shelf = Shelf()
    shelf.open.set()
    async with serve(shelf, SpanCapture("server")) as (address, _):
        for instrumentation in ("native", "contrib"):
            telemetry = SpanCapture("client", instrumentation).telemetry
            async with open_channel(address, service=SERVICE, repeatable=(), limit=5, telemetry=telemetry) as channel:
                get = channel.batching(method(channel))
                await asyncio.gather(*map(get, BOOKS))
    assert [len(titles) for _, titles in shelf.calls] == [3, 1, 1, 1]
