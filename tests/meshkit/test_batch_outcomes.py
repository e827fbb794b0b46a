"""What becomes of the members of a batch that fails, or whose response lacks some: `meshkit.client.batch_call`."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from meshkit.deadline import budget
from meshkit.errors import DeadlineExceeded, NotFound, ResourceExhausted, ServiceError, Unavailable, mapping_of
from meshkit.status import service_errors
from tests.meshkit.shelf import Library, library

BOOKS = [b"emma", b"ulysses", b"walden"]
OF_EACH = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"]
OTHERS = ["PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "NOT_FOUND"]
OF_ONE = ["INVALID_ARGUMENT", "INTERNAL", "UNKNOWN"]


async def codes(tasks: list[asyncio.Task[bytes]]) -> list[str]:
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    return [mapping_of(error).code if isinstance(error, ServiceError) else "OK" for error in errors]


def methods(books: Library) -> list[str]:
    return [name for name, _ in books.shelf.calls]


@pytest.mark.parametrize("code", OF_EACH + OTHERS)
async def test_a_status_of_the_server_is_each_members_own_and_nothing_is_asked_again(code: str) -> None:
    async with library() as books:
        books.shelf.failures["BatchGet"] = grpc.StatusCode[code]
        books.shelf.failures["Get"] = grpc.StatusCode[code]
        together = await codes(books.ask(*BOOKS))
        assert methods(books) == ["BatchGet"]
        [alone] = await codes(books.ask(b"emma"))
    assert together == [alone] * 3


async def test_each_member_gets_an_error_of_its_own_with_all_its_details() -> None:
    async with library() as books:
        books.shelf.failures["BatchGet"] = ResourceExhausted("busy", retry_after=2.5)
        errors = await asyncio.gather(*books.ask(*BOOKS), return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    assert [(str(error), getattr(error, "retry_after", None)) for error in errors] == [("busy", 2.5)] * 3


async def test_a_member_that_the_response_lacks_gets_the_error_of_the_single_call() -> None:
    async with library() as books:
        responses = await asyncio.gather(*books.ask(b"emma", b"nothing", b"walden"), return_exceptions=True)
        with pytest.raises(NotFound) as alone:
            await books.get(b"nothing")
    assert (responses[0], responses[2]) == (b"EMMA", b"WALDEN")
    missing = responses[1]
    assert isinstance(missing, NotFound)
    assert (str(missing), missing.reason, missing.domain) == (
        str(alone.value),
        alone.value.reason,
        alone.value.domain,
    )
    assert methods(books) == ["BatchGet", "Get"]


@pytest.mark.parametrize("code", OF_ONE)
async def test_a_status_that_one_member_may_have_caused_is_asked_one_by_one(code: str) -> None:
    async with library() as books:
        books.shelf.failures["BatchGet"] = grpc.StatusCode[code]
        assert await codes(books.ask(b"emma", b"nothing", b"walden")) == ["OK", "NOT_FOUND", "OK"]
    assert sorted(methods(books)) == ["BatchGet", "Get", "Get", "Get"]


@pytest.mark.parametrize("garbage", [b"A", b"A,B,C,D"])
async def test_a_response_that_does_not_answer_its_request_is_asked_one_by_one(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "meshkit.client")
    async with library() as books:
        books.shelf.garbage = garbage
        assert await asyncio.gather(*books.ask(*BOOKS)) == [b"EMMA", b"ULYSSES", b"WALDEN"]
    [line] = [record.getMessage() for record in caplog.records if record.name == "meshkit.client"]
    assert line.startswith("3 calls of test.Shelf/Get are made one by one: ")


async def test_at_most_four_calls_are_made_one_by_one_at_a_time() -> None:
    titles = [b"%d" % number for number in range(10)]
    async with library(open_=False) as books:
        books.shelf.failures["BatchGet"] = grpc.StatusCode.INTERNAL
        tasks = books.ask(*titles)
        await books.shelf.until_called(1)
        books.shelf.open.set()
        books.shelf.open.clear()
        await books.shelf.until_called(5)
        await books.settle()
        assert methods(books) == ["BatchGet"] + ["Get"] * 4
        books.shelf.open.set()
        assert await asyncio.gather(*tasks) == titles
    assert books.shelf.most_active == 4


async def test_calls_that_are_made_one_by_one_end_at_their_members_deadlines() -> None:
    async with library(open_=False) as books:
        books.shelf.failures["BatchGet"] = grpc.StatusCode.INTERNAL
        with budget(0.8):
            hasty = books.ask(*[b"emma"] * 5)  # four in their handlers, one that waits for its turn
        with budget(10):
            [patient] = books.ask(b"walden")
        await books.shelf.until_called(1)
        books.shelf.open.set()
        books.shelf.open.clear()
        assert await codes(hasty) == ["DEADLINE_EXCEEDED"] * 5
        books.shelf.open.set()
        assert await patient == b"WALDEN"
    assert sorted(left or 0 for left in books.shelf.time_left[1:])[-2] < 0.8


async def test_a_member_that_is_cancelled_while_it_waits_for_its_turn_makes_no_call() -> None:
    async with library(open_=False) as books:
        books.shelf.failures["BatchGet"] = grpc.StatusCode.INTERNAL
        tasks = books.ask(*[b"emma"] * 6)
        await books.shelf.until_called(1)
        books.shelf.open.set()
        books.shelf.open.clear()
        await books.shelf.until_called(5)
        tasks[4].cancel()
        await asyncio.wait(tasks[4:5])
        books.shelf.open.set()
        assert await codes(tasks[:4] + tasks[5:]) == ["OK"] * 5
    assert len(books.shelf.calls) == 6


async def test_closing_the_channel_fails_the_members_of_a_batch() -> None:
    async with library(open_=False) as books:
        tasks = books.ask(*BOOKS)
        await books.shelf.until_called(1)
        await books.channel.close()
        for task in tasks:
            with pytest.raises(Unavailable):
                await task


async def test_members_whose_deadlines_pass_during_the_call_are_deadline_exceeded() -> None:
    async with library(open_=False) as books:
        with budget(0.2):
            tasks = books.ask(*BOOKS)
        for task in tasks:
            with pytest.raises(DeadlineExceeded):
                await task
    [rpc] = books.client.spans("test.Shelf/BatchGet")
    assert (rpc.attributes or {})["rpc.response.status_code"] == "DEADLINE_EXCEEDED"


async def test_while_a_server_is_gone_there_are_no_more_attempts_than_lookups() -> None:
    async with library() as books:
        await books.get(b"emma")
        await books.running.stop(None)
        with service_errors():
            for _ in range(3):
                assert await codes(books.ask(*[b"emma"] * 20)) == ["UNAVAILABLE"] * 20
        attempts = [span for span in books.client.spans() if span.kind.name == "CLIENT"]
    assert len(attempts) == 1 + 3
