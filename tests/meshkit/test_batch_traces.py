"""The spans of lookups that travel together, in the trace of each: `meshkit.client.batch_traces`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, use_span

from meshkit.batch_metadata import KEY, MAX_MEMBERS, Members, read_members, write_members
from meshkit.deadline import budget
from meshkit.errors import DeadlineExceeded
from tests.meshkit.shelf import BATCH_GET, GET, Library, library

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

CODE, SIZE = "rpc.response.status_code", "rpc.batch.size"


def request(number: int, *, sampled: bool = True) -> NonRecordingSpan:
    """The span of a request of its own trace, whose id is the number."""
    return NonRecordingSpan(SpanContext(number, number, is_remote=True, trace_flags=TraceFlags(int(sampled))))


def ask(books: Library, **titles: bool) -> list[asyncio.Task[bytes]]:
    """Starts lookups in one turn, each in a trace of its own: 1, 2 and so on, sampled or not."""
    tasks = []
    for number, (title, sampled) in enumerate(titles.items(), 1):
        with use_span(request(number, sampled=sampled)):
            tasks += books.ask(title.encode())
    return tasks


async def ended(books: Library, client: int, server: int) -> tuple[list[ReadableSpan], list[ReadableSpan]]:
    """All spans of both sides, once there are so many."""
    while len(books.client.spans()) < client or len(books.server.spans()) < server:
        await asyncio.sleep(0)
    return books.client.spans(), books.server.spans()


def of_kind(spans: list[ReadableSpan], kind: SpanKind) -> list[ReadableSpan]:
    """The spans of one kind, by trace."""
    return sorted((span for span in spans if span.kind is kind), key=lambda span: id_of(span)[0])


def id_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.context
    return span.context.trace_id, span.context.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent
    return span.parent.trace_id, span.parent.span_id


def links_of(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def attribute(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


async def test_a_lookup_alone_has_the_two_spans_of_its_call_and_no_other() -> None:
    async with library() as books:
        await asyncio.gather(*ask(books, emma=True))
        [client], [server] = await ended(books, 1, 1)
    assert [(span.name, span.kind, links_of(span)) for span in (client, server)] == [
        (GET, SpanKind.CLIENT, []),
        (GET, SpanKind.SERVER, []),
    ]
    assert (parent_of(client), parent_of(server)) == ((1, 1), id_of(client))
    assert SIZE not in {*(client.attributes or {}), *(server.attributes or {})}


async def test_a_batch_is_one_rpc_under_its_first_sampled_member_and_linked_with_all_others() -> None:
    async with library() as books:
        await asyncio.gather(*ask(books, emma=False, ulysses=True, walden=True, ivanhoe=False, utopia=True))
        at_client, at_server = await ended(books, 4, 4)
    members, [rpc] = of_kind(at_client, SpanKind.INTERNAL), of_kind(at_client, SpanKind.CLIENT)
    parts, [handled] = of_kind(at_server, SpanKind.INTERNAL), of_kind(at_server, SpanKind.SERVER)

    assert (rpc.name, handled.name) == (BATCH_GET, BATCH_GET)
    assert (parent_of(rpc), parent_of(handled)) == (id_of(members[0]), id_of(rpc))
    assert links_of(rpc) == links_of(handled) == [id_of(member) for member in members[1:]]

    assert [(member.name, parent_of(member)) for member in members] == [(GET, (2, 2)), (GET, (3, 3)), (GET, (5, 5))]
    assert [links_of(member) for member in members] == [[id_of(rpc)]] * 3
    assert [(part.name, parent_of(part)) for part in parts] == [(BATCH_GET, id_of(member)) for member in members]
    assert [links_of(part) for part in parts] == [[id_of(handled)]] * 3
    assert [attribute(span, SIZE) for span in members + parts] == [5] * 6
    assert [attribute(span, CODE) for span in at_client + at_server] == ["OK"] * 8
    assert {span.status.status_code for span in at_client + at_server} == {StatusCode.UNSET}


async def test_a_batch_without_a_sampled_member_has_no_span() -> None:
    async with library() as books:
        await asyncio.gather(*ask(books, emma=False, ulysses=False))
        await books.settle()
        assert books.shelf.calls == [("BatchGet", [b"emma", b"ulysses"])]
    assert [span.name for span in books.client.spans() + books.server.spans() if "Get" in span.name] == []


async def test_the_span_of_a_member_begins_with_its_lookup() -> None:
    async with library(open_=False) as books:
        first = await books.first_in_flight()
        waiting = books.ask(b"emma", b"walden")
        await books.settle()
        books.shelf.open.set()
        await asyncio.gather(first, *waiting)
        at_client, _ = await ended(books, 5, 4)
    (alone,) = [span for span in at_client if span.name == GET and span.kind is SpanKind.CLIENT]
    for member in of_kind(at_client, SpanKind.INTERNAL):
        assert (member.start_time or 0) < (alone.end_time or 0)


async def test_each_member_ends_with_its_own_outcome() -> None:
    async with library(open_=False) as books:
        with budget(0.2):
            [hasty] = books.ask(b"emma")
        found, missing, leaving = books.ask(b"walden", b"nothing", b"utopia")
        await books.shelf.until_called(1)
        leaving.cancel()
        with pytest.raises(DeadlineExceeded):
            await hasty
        books.shelf.open.set()
        await asyncio.gather(found, missing, leaving, return_exceptions=True)
        at_client, at_server = await ended(books, 5, 5)
    [rpc] = of_kind(at_client, SpanKind.CLIENT)
    members = [span for span in at_client if span is not rpc]
    assert sorted(attribute(member, CODE) for member in members) == [
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "OK",
    ]
    for member in members:
        code = attribute(member, CODE)
        assert member.status.status_code is (StatusCode.UNSET if code == "OK" else StatusCode.ERROR)
        assert attribute(member, "error.type") == (None if code == "OK" else code)
        assert links_of(member) == [id_of(rpc)]
    assert {attribute(span, CODE) for span in [rpc, *at_server]} == {"OK"}


async def test_the_failure_of_a_batch_is_in_every_span() -> None:
    async with library() as books:
        books.shelf.failures["BatchGet"] = grpc.StatusCode.UNAVAILABLE
        await asyncio.gather(*books.ask(b"emma", b"walden"), return_exceptions=True)
        at_client, at_server = await ended(books, 3, 3)
    spans = at_client + at_server
    assert [(attribute(span, CODE), span.status.status_code) for span in spans] == [
        ("UNAVAILABLE", StatusCode.ERROR)
    ] * 6
    assert {span.status.description for span in at_client} == {"on purpose"}


async def test_a_batch_whose_members_have_all_left_is_cancelled_in_every_span() -> None:
    async with library(open_=False) as books:
        tasks = books.ask(b"emma", b"walden")
        await books.shelf.until_called(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        at_client, at_server = await ended(books, 3, 3)
    assert [attribute(span, CODE) for span in at_client + at_server] == ["CANCELLED"] * 6


async def test_a_call_that_is_made_one_by_one_is_under_the_span_of_its_member() -> None:
    async with library() as books:
        books.shelf.failures["BatchGet"] = grpc.StatusCode.INTERNAL
        await asyncio.gather(*books.ask(b"emma", b"nothing"), return_exceptions=True)
        at_client, _ = await ended(books, 5, 5)
    members = of_kind(at_client, SpanKind.INTERNAL)
    singles = [span for span in at_client if span.name == GET and span.kind is SpanKind.CLIENT]
    assert {parent_of(single) for single in singles} == {id_of(member) for member in members}
    assert sorted(attribute(member, CODE) for member in members) == ["NOT_FOUND", "OK"]


async def test_a_lookup_that_leaves_before_it_is_sent_has_a_span() -> None:
    async with library(open_=False) as books:
        first = await books.first_in_flight()
        [waiting] = books.ask(b"emma")
        await books.settle()
        waiting.cancel()
        await asyncio.wait([waiting])
        books.shelf.open.set()
        await first
    [left] = of_kind(books.client.spans(), SpanKind.INTERNAL)
    assert (left.name, links_of(left)) == (GET, [])
    assert left.attributes == {CODE: "CANCELLED", "error.type": "CANCELLED"}


A_MEMBER = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(3))


def test_the_members_survive_their_journey() -> None:
    members = Members(9, [A_MEMBER, SpanContext(2**128 - 1, 2**64 - 1, is_remote=True, trace_flags=TraceFlags(1))])
    read = read_members([("traceparent", "x"), write_members(members)])
    assert read == members
    assert read.sampled[0].trace_flags == 3
    assert read_members([("traceparent", "x")]) is None


MEMBER = write_members(Members(1, [A_MEMBER]))[1][2:]
MALFORMED = {
    "empty": b"",
    "no members": b"\0\2",
    "half a member": b"\0\1" + MEMBER[:-1],
    "more members than the size": b"\0\1" + MEMBER * 2,
    "too many members": b"\0\xff" + MEMBER * (MAX_MEMBERS + 1),
    "too large a size": b"\xff\xff" + MEMBER,
    "no trace id": b"\0\1" + bytes(25),
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_entry_in_the_metadata_is_ignored(value: bytes) -> None:
    async with library() as books:
        assert await books.get(b"emma", metadata=((KEY, value),)) == b"EMMA"
        _, at_server = await ended(books, 1, 1)
    assert [span.kind for span in at_server] == [SpanKind.SERVER]
