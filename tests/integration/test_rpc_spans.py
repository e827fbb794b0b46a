"""One span on each side of every call, with the status that the call really had."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from echo import SERVICE, Echo, echo

from meshkit.errors import NotFound, Unavailable
from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from opentelemetry.sdk.trace import ReadableSpan

Context = grpc.aio.ServicerContext[bytes, bytes]


async def ok(request: bytes, context: Context) -> bytes:
    return request


async def abort(request: bytes, context: Context) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "no")
    raise AssertionError


async def domain_error(request: bytes, context: Context) -> bytes:
    raise NotFound("no")


async def unavailable(request: bytes, context: Context) -> bytes:
    raise Unavailable("away")


async def crash(request: bytes, context: Context) -> bytes:
    raise ZeroDivisionError


async def for_ever(request: bytes, context: Context) -> bytes:
    await asyncio.Event().wait()
    return request


def code(span: ReadableSpan) -> object:
    assert span.attributes is not None
    return span.attributes[semconv.RPC_RESPONSE_STATUS_CODE]


async def one_span_each(service: Echo) -> tuple[ReadableSpan, ReadableSpan]:
    """The call's client and server span; the server's may end a moment after the client has its answer."""
    while not (service.client.spans() and service.server.spans()):
        await asyncio.sleep(0)
    (client,), (server,) = service.client.spans(), service.server.spans()
    return client, server


@pytest.mark.parametrize(
    ("handler", "status", "server_error"),
    [
        (ok, "OK", False),
        (abort, "NOT_FOUND", False),
        (domain_error, "NOT_FOUND", False),
        (unavailable, "UNAVAILABLE", True),
        (crash, "INTERNAL", True),
        (for_ever, "DEADLINE_EXCEEDED", True),
    ],
)
async def test_both_spans_tell_how_a_unary_call_ended(
    handler: Callable[[bytes, Context], Awaitable[bytes]], status: str, *, server_error: bool
) -> None:
    async with echo(UnaryUnary=handler) as service:
        try:
            await service.unary(timeout=0.2 if handler is for_ever else 5)
        except grpc.aio.AioRpcError as error:
            assert error.code().name == status  # noqa: PT017 - one handler of the table does not raise
        client, server = await one_span_each(service)

    assert (client.name, server.name) == (f"{SERVICE}/UnaryUnary",) * 2
    assert (code(client), code(server)) == (status, status)
    assert (client.status.is_ok, server.status.is_ok) == (status == "OK", not server_error)
    assert server.parent is not None
    assert client.context is not None
    assert server.parent.span_id == client.context.span_id
    assert server.parent.trace_id == client.context.trace_id
    assert len(server.events) <= 1


@pytest.mark.parametrize("how", ["task.cancel", "call.cancel", "asyncio.timeout", "TaskGroup"])
async def test_cancelling_the_caller_cancels_the_handler_and_ends_both_spans(how: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: bytes, context: Context) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return request

    async with echo(UnaryUnary=handler) as service:
        await CANCELLATIONS[how](service, started)
        await cancelled.wait()
        client, server = await one_span_each(service)
    assert (code(client), code(server)) == ("CANCELLED", "CANCELLED")
    assert server.status.is_unset


async def cancel_task(service: Echo, started: asyncio.Event) -> None:
    task = asyncio.create_task(service.unary())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_call(service: Echo, started: asyncio.Event) -> None:
    call = service.channel.unary_unary(f"/{SERVICE}/UnaryUnary")(b"")
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def time_out(service: Echo, started: asyncio.Event) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            task = asyncio.create_task(expire(timeout, started))
            await service.unary()
    await task


async def expire(limit: asyncio.Timeout, started: asyncio.Event) -> None:
    await started.wait()
    limit.reschedule(0)


async def fail_sibling(service: Echo, started: asyncio.Event) -> None:
    async def fail() -> None:
        await started.wait()
        raise LookupError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(service.unary())
            group.create_task(fail())


CANCELLATIONS: dict[str, Callable[[Echo, asyncio.Event], Awaitable[None]]] = {
    "task.cancel": cancel_task,
    "call.cancel": cancel_call,
    "asyncio.timeout": time_out,
    "TaskGroup": fail_sibling,
}


async def count_by_generator(request: bytes, context: Context) -> AsyncIterator[bytes]:
    for number in range(3):
        yield str(number).encode()


async def count_by_write(request: bytes, context: Context) -> None:
    for number in range(3):
        await context.write(str(number).encode())


@pytest.mark.parametrize("handler", [count_by_generator, count_by_write])
async def test_a_server_stream_makes_one_span_each_whatever_form_its_handler_has(handler: Any) -> None:
    async with echo(UnaryStream=handler) as service:
        call = service.channel.unary_stream(f"/{SERVICE}/UnaryStream")(b"")
        assert [response async for response in call] == [b"0", b"1", b"2"]
        client, server = await one_span_each(service)
    assert (code(client), code(server)) == ("OK", "OK")


async def test_a_stream_that_is_left_early_ends_both_spans() -> None:
    closed = asyncio.Event()

    async def handler(request: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    async with echo(UnaryStream=handler) as service:
        call = service.channel.unary_stream(f"/{SERVICE}/UnaryStream")(b"")
        try:
            async for _ in call:
                break
        finally:
            call.cancel()
        await closed.wait()
        client, server = await one_span_each(service)
    assert (code(client), code(server)) == ("CANCELLED", "CANCELLED")


async def test_client_and_bidirectional_streams_make_one_span_each() -> None:
    async def join(requests: AsyncIterator[bytes], context: Context) -> bytes:
        return b"".join([request async for request in requests])

    async def echo_all(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async with echo(StreamUnary=join, StreamStream=echo_all) as service:
        upload = service.channel.stream_unary(f"/{SERVICE}/StreamUnary")()
        for part in (b"a", b"b"):
            await upload.write(part)
        await upload.done_writing()
        assert await upload == b"ab"
        talk = service.channel.stream_stream(f"/{SERVICE}/StreamStream")(iter([b"c", b"d"]))
        assert [response async for response in talk] == [b"c", b"d"]
        while len(service.server.spans()) < 2:
            await asyncio.sleep(0)
    assert sorted((span.name, code(span)) for span in service.server.spans()) == [
        (f"{SERVICE}/StreamStream", "OK"),
        (f"{SERVICE}/StreamUnary", "OK"),
    ]
    assert len(service.client.spans()) == 2


@pytest.mark.parametrize(("timeout", "status"), [(0.1, "DEADLINE_EXCEEDED"), (None, "CANCELLED")])
async def test_an_error_that_comes_when_the_call_is_over_changes_nothing(
    timeout: float | None,  # noqa: ASYNC109 - the call's own
    status: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = asyncio.Event()

    async def fail_late(request: bytes, context: Context) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise NotFound("too late to tell")

    async with echo(UnaryUnary=fail_late) as service:
        call = service.channel.unary_unary(f"/{SERVICE}/UnaryUnary")(b"", timeout=timeout)
        await begun.wait()
        if timeout is None:
            call.cancel()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await call
        _, server = await one_span_each(service)
    assert (code(server), server.events) == (status, ())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_health_and_reflection_make_no_spans() -> None:
    async with echo(UnaryUnary=ok) as service:
        await service.channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
        assert service.server.spans() == []


async def test_the_handler_runs_inside_the_server_span() -> None:
    async with echo(UnaryUnary=ok) as leaf:

        async def forward(request: bytes, context: Context) -> bytes:
            return await leaf.unary(request)

        async with echo(UnaryUnary=forward) as middle:
            await middle.unary()
            _, server = await one_span_each(middle)
            client, _ = await one_span_each(leaf)
    assert client.parent is not None
    assert server.context is not None
    assert client.parent.span_id == server.context.span_id


async def test_contrib_instrumentation_can_be_chosen() -> None:
    async with echo(UnaryUnary=ok, instrumentation="contrib") as service:
        await service.unary()
        client, server = await one_span_each(service)
    assert client.instrumentation_scope is not None
    assert server.instrumentation_scope is not None
    names = {client.instrumentation_scope.name, server.instrumentation_scope.name}
    assert names == {"opentelemetry.instrumentation.grpc"}
