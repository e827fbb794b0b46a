"""Spans of calls: their attributes, and their status in cases that the conformance table does not cover."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from google.rpc import status_pb2
from opentelemetry import baggage, propagate
from opentelemetry.propagators.composite import CompositePropagator

from meshkit.errors import NotFound
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.server.tracing import TRANSIT
from meshkit.telemetry import semconv
from meshkit.testing import SpanCapture, start_server
from tests.meshkit.echo import SERVICE, Echo, always_healthy, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.sdk.trace import ReadableSpan

Context = grpc.aio.ServicerContext[bytes, bytes]


async def ok(request: bytes, context: Context) -> bytes:
    return request


def code(span: ReadableSpan) -> object:
    assert span.attributes is not None
    return span.attributes[semconv.RPC_RESPONSE_STATUS_CODE]


async def one_span_each(service: Echo) -> tuple[ReadableSpan, ReadableSpan]:
    """The call's client and server span; the server span may end shortly after the client has the response."""
    while not (service.client.spans() and service.server.spans()):
        await asyncio.sleep(0)
    (client,), (server,) = service.client.spans(), service.server.spans()
    return client, server


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
async def test_spans_have_the_method_the_client_and_the_server(listen: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "meshkit.rpc")
    async with echo(UnaryUnary=ok, listen=listen) as service:
        await service.unary()
        client, server = await one_span_each(service)
    assert (client.name, server.name) == (f"{SERVICE}/UnaryUnary",) * 2
    assert client.attributes is not None
    assert server.attributes is not None
    common = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: client.name, semconv.RPC_RESPONSE_STATUS_CODE: "OK"}
    host, _, port = service.address.rpartition(":")
    address = host.strip("[]")
    assert client.attributes == {**common, semconv.SERVER_ADDRESS: address, semconv.SERVER_PORT: int(port)}
    peer = server.attributes[semconv.CLIENT_PORT]
    assert server.attributes == {**common, semconv.CLIENT_ADDRESS: address, semconv.CLIENT_PORT: peer}
    [line] = [vars(record) for record in caplog.records if record.name == "meshkit.rpc"]
    assert line["peer"].partition(":")[2] == f"{host}:{peer!r}"


async def test_a_deadline_rounded_up_in_transit_is_not_a_cancellation() -> None:
    async def handler(request: bytes, context: Context) -> bytes:
        await asyncio.Event().wait()
        return request

    async with echo(UnaryUnary=handler) as service:
        with pytest.raises(grpc.aio.AioRpcError):
            await service.unary(timeout=1.001)
        client, server = await one_span_each(service)
    assert (code(client), code(server)) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_a_response_after_the_deadline_is_no_success(caplog: pytest.LogCaptureFixture) -> None:
    """The loop has not yet heard of the cancellation, and the client gives up by its own clock."""
    caplog.set_level("INFO", "meshkit.rpc")

    async def handler(request: bytes, context: Context) -> bytes:
        late = time.monotonic() + 0.1 + 2 * TRANSIT
        while time.monotonic() < late:
            pass  # the loop is blocked
        return request

    async with echo(UnaryUnary=handler) as service:
        with pytest.raises(grpc.aio.AioRpcError):
            await service.unary(timeout=0.1)
        client, server = await one_span_each(service)
    assert (code(client), code(server)) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    [line] = [vars(record) for record in caplog.records if record.name == "meshkit.rpc"]
    assert line["status"] == "DEADLINE_EXCEEDED"


async def cancelled_once_begun(service: Echo, begun: asyncio.Event) -> ReadableSpan:
    """The server span of a call that is cancelled when its handler has started."""
    call = service.channel.unary_unary(f"/{SERVICE}/UnaryUnary")(b"")
    await begun.wait()
    call.cancel()
    _, server = await one_span_each(service)
    return server


async def test_a_call_whose_handler_swallows_the_cancellation_is_cancelled() -> None:
    begun = asyncio.Event()

    async def handler(request: bytes, context: Context) -> bytes:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return request

    async with echo(UnaryUnary=handler) as service:
        server = await cancelled_once_begun(service, begun)
    assert code(server) == "CANCELLED"


async def test_stopping_the_server_cancels_a_handler_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, stopped, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda _: over.set())
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await stopped.wait()
        return request

    async with echo(UnaryUnary=handler) as service:
        call = service.channel.unary_unary(f"/{SERVICE}/UnaryUnary")(b"")
        await begun.wait()
        await service.running.stop(None)
        stopped.set()
        await over.wait()
        client, server = await one_span_each(service)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert (code(client), code(server)) == ("UNAVAILABLE", "CANCELLED")
    assert [record for record in caplog.records if record.name.startswith("grpc")] == []


async def test_a_unary_call_without_a_request_is_rejected_and_has_spans() -> None:
    async with echo(UnaryUnary=ok) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.channel.stream_unary(f"/{SERVICE}/UnaryUnary")(iter(()))
        client, server = await one_span_each(service)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (code(client), code(server)) == ("UNIMPLEMENTED", "UNIMPLEMENTED")


async def test_an_unparsable_request_has_a_span_and_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    def add(server: grpc.aio.Server) -> None:
        method: Any = grpc.unary_unary_rpc_method_handler(cast("Any", ok), status_pb2.Status.FromString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Parse": method}),))

    capture = SpanCapture("server")
    built = build_server(services={SERVICE: add}, health=Health(SERVICE, always_healthy), telemetry=capture.telemetry)
    async with start_server(built) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await cast("Any", channel).unary_unary(f"/{SERVICE}/Parse")(b"\xff")
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INTERNAL, "the request cannot be parsed")
    assert [code(span) for span in capture.spans()] == ["INTERNAL"]
    [line] = [record for record in caplog.records if record.name == "meshkit.server"]
    assert line.getMessage().startswith(f"{SERVICE}/Parse failed: the request cannot be parsed (Error parsing message")
    assert line.exc_info is None, "the client's error, not a bug"


async def test_an_unexpected_exception_is_an_event_of_its_span() -> None:
    async def crash(request: bytes, context: Context) -> bytes:
        raise ZeroDivisionError

    async with echo(UnaryUnary=crash) as service:
        with pytest.raises(grpc.aio.AioRpcError):
            await service.unary()
        _, server = await one_span_each(service)
    [event] = server.events
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "ZeroDivisionError"


@pytest.mark.parametrize(("timeout", "status"), [(1.0, "DEADLINE_EXCEEDED"), (None, "CANCELLED")])
async def test_an_error_after_the_end_of_a_call_changes_nothing(
    timeout: float | None,  # noqa: ASYNC109 - the timeout of the call
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


async def abort(context: Context) -> None:
    await context.abort(grpc.StatusCode.NOT_FOUND, "no")


async def abort_in_a_task_group(request: bytes, context: Context) -> bytes:
    async with asyncio.TaskGroup() as group:
        group.create_task(abort(context))
    return request


async def abort_and_fail(request: bytes, context: Context) -> bytes:
    try:
        await abort(context)
    finally:
        raise NotFound("what was aborted already")


async def abort_and_answer(request: bytes, context: Context) -> bytes:
    with contextlib.suppress(grpc.aio.AbortError):
        await abort(context)
    return request


async def abort_and_cancel(request: bytes, context: Context) -> bytes:
    try:
        await abort(context)
    finally:
        raise asyncio.CancelledError


@pytest.mark.parametrize("handler", [abort_in_a_task_group, abort_and_fail, abort_and_answer, abort_and_cancel])
async def test_catching_or_replacing_an_abort_in_the_handler_changes_nothing(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with echo(UnaryUnary=handler) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.unary()
        client, server = await one_span_each(service)
    assert refused.value.details() == "no"
    assert (code(client), code(server)) == ("NOT_FOUND", "NOT_FOUND")
    assert [record for record in caplog.records if record.name.startswith("grpc")] == []


async def test_an_abort_of_a_call_that_is_cancelled_is_a_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def abort_late(request: bytes, context: Context) -> bytes:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await abort(context)
        return request

    async with echo(UnaryUnary=abort_late) as service:
        server = await cancelled_once_begun(service, begun)
    assert (code(server), server.events) == ("CANCELLED", ())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def number(request: bytes, context: Context) -> Any:
    return 1


async def cancel_another_task(request: bytes, context: Context) -> bytes:
    other = asyncio.create_task(asyncio.Event().wait())
    other.cancel()
    await other
    return request


@pytest.mark.parametrize(
    ("handler", "exception"), [(number, "TypeError"), (cancel_another_task, "asyncio.exceptions.CancelledError")]
)
@pytest.mark.parametrize("arity", ["UnaryUnary", "StreamUnary"])
async def test_a_handler_without_a_response_is_an_internal_error(arity: str, handler: Any, exception: str) -> None:
    async with echo(**{arity: handler}) as service:
        with pytest.raises(grpc.aio.AioRpcError):
            await service.channel.stream_unary(f"/{SERVICE}/{arity}")(iter([b""]))
        client, server = await one_span_each(service)
    assert (code(client), code(server)) == ("INTERNAL", "INTERNAL")
    [event] = server.events
    assert event.attributes is not None
    assert event.attributes["exception.type"] == exception


async def overcome(request: bytes, context: Context) -> bytes:
    async def fail() -> None:
        raise ZeroDivisionError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    except* ZeroDivisionError:
        pass
    return request


async def overcome_and_yield(request: bytes, context: Context) -> AsyncIterator[bytes]:
    yield await overcome(request, context)


@pytest.mark.parametrize(("arity", "handler"), [("UnaryUnary", overcome), ("UnaryStream", overcome_and_yield)])
async def test_a_handled_task_group_failure_does_not_cancel_the_call(arity: str, handler: Any) -> None:
    async with echo(**{arity: handler}) as service:
        async for _ in service.channel.unary_stream(f"/{SERVICE}/{arity}")(b""):
            pass
        client, server = await one_span_each(service)
    assert (code(client), code(server)) == ("OK", "OK")


async def test_without_propagators_every_call_begins_a_trace() -> None:
    """The tasks of calls inherit the context in which their server was started."""
    propagator = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator([]))
    try:
        with SpanCapture("startup").telemetry.tracer_provider.get_tracer("startup").start_as_current_span("startup"):
            async with echo(UnaryUnary=ok) as service:
                await service.unary()
                _, server = await one_span_each(service)
    finally:
        propagate.set_global_textmap(propagator)
    assert server.parent is None


async def test_health_and_reflection_have_no_spans() -> None:
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


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")


@pytest.mark.parametrize(
    ("metadata", "trace_state"),
    [
        ([TRACEPARENT, ("tracestate", "a=1,b=2")], {"a": "1", "b": "2"}),
        (
            [TRACEPARENT, ("tracestate", "a=1"), ("tracestate", "b=2"), ("tracestate", "c=3")],
            {"a": "1", "b": "2", "c": "3"},
        ),
    ],
)
async def test_repeated_keys_of_metadata_are_one_list(
    metadata: list[tuple[str, str]], trace_state: dict[str, str]
) -> None:
    found: dict[str, object] = {}

    async def handler(request: bytes, context: Context) -> bytes:
        found.update(baggage.get_all())
        return request

    entries = [*metadata, ("baggage", "x=1"), ("baggage", "y=2")]
    async with echo(UnaryUnary=handler) as service:
        async with grpc.aio.insecure_channel(service.address) as plain:
            await cast("Any", plain).unary_unary(f"/{SERVICE}/UnaryUnary")(b"", metadata=entries)
        while not service.server.spans():
            await asyncio.sleep(0)
        [span] = service.server.spans()
    assert found == {"x": "1", "y": "2"}
    assert span.context is not None
    assert dict(span.context.trace_state) == trace_state
