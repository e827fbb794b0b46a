"""A response that cannot be parsed is INTERNAL for the caller, its interceptors and the span, with every arity."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import status_pb2

from meshkit.status import read_error
from tests.meshkit.echo import SERVICE, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    from tests.meshkit.echo import Echo

GOOD, GARBAGE = status_pb2.Status(message="x").SerializeToString(), b"\xff\xff\xff"
CODE = {"native": "rpc.response.status_code", "contrib": "rpc.grpc.status_code"}
INTERNAL = {"native": "INTERNAL", "contrib": 13}


async def one(_request: object, _context: object) -> bytes:
    return GARBAGE


async def last_of_three(_request: object, _context: object) -> AsyncIterator[bytes]:
    for message in (GOOD, GOOD, GARBAGE):
        yield message


async def first_of_many(_request: object, _context: object) -> AsyncIterator[bytes]:
    yield GARBAGE
    while True:
        yield GOOD
        await asyncio.sleep(0)


STREAMS = {"the last": last_of_three, "one of many": first_of_many}
ARITIES = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")


class Watcher(grpc.aio.UnaryUnaryClientInterceptor):
    """Records the code and the details of a call before its response is awaited."""

    def __init__(self) -> None:
        self.saw: tuple[object, object] | None = None

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = await continuation(client_call_details, request)
        self.saw = (await call.code(), await call.details())
        return call


def call_of(service: Echo, arity: str) -> Any:
    make = getattr(service.channel, re.sub("(?<!^)(?=[A-Z])", "_", arity).lower())
    multicallable = make(f"/{SERVICE}/{arity}", None, status_pb2.Status.FromString)
    return multicallable(b"" if arity.startswith("Unary") else iter([b""]), timeout=10)


async def await_it(call: Any) -> None:
    await call


async def iterate(call: AsyncIterable[object]) -> None:
    async for message in call:
        assert message == status_pb2.Status(message="x")


async def read(call: Any) -> None:
    while (message := await call.read()) is not grpc.aio.EOF:
        assert message == status_pb2.Status(message="x")


def consumers() -> list[Any]:
    """Each arity with each way to consume its responses, and where the wrong one is."""
    return [
        *(pytest.param(arity, one, await_it, id=f"{arity}-await") for arity in ARITIES if arity.endswith("Unary")),
        *(
            pytest.param(arity, stream, consume, id=f"{arity}-{consume.__name__}-{where}")
            for arity in ARITIES
            if arity.endswith("Stream")
            for consume in (iterate, read)
            for where, stream in STREAMS.items()
        ),
    ]


@pytest.mark.parametrize(("arity", "handler", "consume"), consumers())
@pytest.mark.parametrize("instrumentation", ["native", "contrib"])
async def test_a_response_that_cannot_be_parsed_is_internal(
    arity: str, handler: Any, consume: Callable[[Any], Awaitable[None]], instrumentation: Any
) -> None:
    async with echo(instrumentation=instrumentation, **{arity: handler}) as service:
        call = call_of(service, arity)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await consume(call)
        while not (spans := service.client.spans()):
            await asyncio.sleep(0)
        assert await call.code() is grpc.StatusCode.INTERNAL
    error = read_error(failed.value)
    assert (failed.value.code(), str(error)) == (
        grpc.StatusCode.INTERNAL,
        "a call to another service failed: INTERNAL",
    )
    assert error.__notes__ == ["the response cannot be parsed"]
    assert [(span.attributes or {})[CODE[instrumentation]] for span in spans] == [INTERNAL[instrumentation]]


async def test_a_response_that_nobody_awaits_is_parsed_for_the_span() -> None:
    async with echo(UnaryUnary=one) as service:
        call = call_of(service, "UnaryUnary")
        while not (spans := service.client.spans()):
            await asyncio.sleep(0)
        assert [(span.attributes or {})[CODE["native"]] for span in spans] == ["INTERNAL"]
        assert await call.details() == "the response cannot be parsed"


async def test_an_interceptor_sees_that_a_response_cannot_be_parsed() -> None:
    watcher = Watcher()
    async with echo(client_interceptors=[watcher], UnaryUnary=one) as service:
        with pytest.raises(grpc.aio.AioRpcError):
            await call_of(service, "UnaryUnary")
    assert watcher.saw == (grpc.StatusCode.INTERNAL, "the response cannot be parsed")


async def test_a_missing_response_is_internal() -> None:
    async def none(_request: object, _context: object) -> AsyncIterator[bytes]:
        return
        yield b""

    async with echo(UnaryStream=none) as service:
        make = service.channel.unary_unary(f"/{SERVICE}/UnaryStream", None, status_pb2.Status.FromString)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await make(b"", timeout=10)
    assert failed.value.code() is grpc.StatusCode.INTERNAL


async def test_a_stream_stays_failed() -> None:
    async with echo(UnaryStream=first_of_many) as service:
        call = call_of(service, "UnaryStream")
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        assert not call.cancelled()
