"""A server refuses calls that it cannot finish in time, and never its health checks."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit.errors import ResourceExhausted, ServiceError
from meshkit.server.admission import admission
from meshkit.server.errors import errors
from meshkit.server.handlers import HandlerInterceptor
from meshkit.server.waiting import FORGET_SECONDS, Waiting
from meshkit.status import service_errors
from tests.meshkit.echo import SERVICE, Echo, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Gate:
    """A handler whose calls wait until the test opens the gate."""

    def __init__(self) -> None:
        self.waiting = 0
        self.opened = asyncio.Event()
        self._changed = asyncio.Condition()

    async def __call__(self, request: bytes, _context: object) -> bytes:
        await self.enter()
        return request

    async def enter(self) -> None:
        async with self._changed:
            self.waiting += 1
            self._changed.notify_all()
        try:
            await self.opened.wait()
        finally:
            self.waiting -= 1

    async def holds(self, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.waiting >= number)


class Arrivals(grpc.aio.ServerInterceptor):
    """Reports the arrival of the first call."""

    def __init__(self) -> None:
        self.first = asyncio.Event()

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith(f"/{SERVICE}"):
            self.first.set()
        return await continuation(handler_call_details)


class OneByOne(Gate):
    """A handler that works on one call after the other, each for 20 ms, while the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened.set()
        self._lock = asyncio.Lock()

    async def __call__(self, request: bytes, _context: object) -> bytes:
        await self.enter()
        async with self._lock:
            await asyncio.sleep(0.02)
        return request


async def outcome(service: Echo, **options: Any) -> str:
    try:
        with service_errors():
            await service.unary(**options)
    except ServiceError as error:
        return error.reason
    return "OK"


async def outcomes(service: Echo, number: int, **options: Any) -> Counter[str]:
    return Counter(await asyncio.gather(*(outcome(service, **options) for _ in range(number))))


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "meshkit.admission"]


async def test_a_full_server_refuses_with_retry_info_and_a_span_that_is_no_error() -> None:
    gate = Gate()
    async with echo(UnaryUnary=gate, max_pending=3) as service:
        held = [asyncio.create_task(service.unary()) for _ in range(3)]
        await gate.holds(3)
        with pytest.raises(ResourceExhausted, match="too many calls") as refused, service_errors():
            await service.unary()
        gate.opened.set()
        assert await asyncio.gather(*held) == [b"hello"] * 3
        assert await service.unary() == b"hello"
    assert (refused.value.reason, refused.value.retry_after) == ("RESOURCE_EXHAUSTED", 1.0)
    spans = [span for span in service.server.spans() if (span.attributes or {})["rpc.response.status_code"] != "OK"]
    assert [(span.attributes or {})["rpc.response.status_code"] for span in spans] == ["RESOURCE_EXHAUSTED"]
    assert (spans[0].status.is_unset, spans[0].events) == (True, ())


async def test_a_full_server_answers_health_checks() -> None:
    gate = Gate()
    async with echo(UnaryUnary=gate, max_pending=1) as service:
        held = asyncio.create_task(service.unary())
        await gate.holds(1)
        assert await outcome(service) == "RESOURCE_EXHAUSTED"
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            response = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
        gate.opened.set()
        await held


async def test_streams_count_and_are_refused_too() -> None:
    gate = Gate()

    async def stream(request: bytes, _context: object) -> AsyncIterator[bytes]:
        await gate.enter()
        yield request

    async with echo(UnaryStream=stream, StreamUnary=gate, UnaryUnary=gate, max_pending=2) as service:
        streams = [
            service.channel.unary_stream(f"/{SERVICE}/UnaryStream")(b"hello"),
            service.channel.stream_unary(f"/{SERVICE}/StreamUnary")(iter([b"hello"])),
        ]
        await gate.holds(2)
        assert await outcome(service) == "RESOURCE_EXHAUSTED"
        with pytest.raises(ResourceExhausted), service_errors():
            await service.channel.unary_stream(f"/{SERVICE}/UnaryStream")(b"hello").read()
        for call in streams:
            call.cancel()
        while gate.waiting:
            await asyncio.sleep(0)


async def test_a_call_whose_request_is_not_here_takes_no_place() -> None:
    async def handler(request: bytes, _context: object) -> bytes:
        return request

    arrivals = Arrivals()
    async with echo(UnaryUnary=handler, max_pending=1, server_interceptors=[arrivals]) as service:
        half = service.channel.stream_unary(f"/{SERVICE}/UnaryUnary")()
        await arrivals.first.wait()
        assert await outcome(service) == "OK"
        await half.write(b"whole")
        await half.done_writing()
        assert await half == b"whole"


async def test_a_cancelled_or_failed_call_leaves_its_place() -> None:
    gate = Gate()

    async def fail_if_asked(request: bytes, context: Any) -> bytes:
        if request == b"fail":
            raise ValueError
        return await gate(request, context)

    async with echo(UnaryUnary=fail_if_asked, max_pending=1) as service:
        assert await outcome(service, request=b"fail") == "INTERNAL"
        held = asyncio.create_task(service.unary())
        await gate.holds(1)
        held.cancel()
        while await outcome(service, request=b"fail") == "RESOURCE_EXHAUSTED":
            await asyncio.sleep(0)


async def test_a_call_is_refused_if_those_ahead_will_outlast_its_deadline() -> None:
    handler = OneByOne()
    async with echo(UnaryUnary=handler, limit=60) as service:
        assert await outcomes(service, 1) == {"OK": 1}
        assert await outcomes(service, 12) == {"OK": 12}, "without data every call is admitted"
        handler.opened.clear()
        patient = asyncio.create_task(outcomes(service, 40))
        await handler.holds(40)
        assert await outcome(service, timeout=0.5) == "RESOURCE_EXHAUSTED"
        handler.opened.set()
        assert await patient == {"OK": 40}
        assert await outcome(service, timeout=60) == "OK", "a call with none ahead is always admitted"


async def test_a_server_that_does_all_at_once_refuses_no_call() -> None:
    async def handler(request: bytes, _context: object) -> bytes:
        await asyncio.sleep(0.02)
        return request

    async with echo(UnaryUnary=handler, limit=60) as service:
        for number in (1, 5, 50):
            assert await outcomes(service, number, timeout=5) == {"OK": number}


async def test_refusing_is_one_log_line_at_its_beginning_and_one_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    inner = HandlerInterceptor([errors, admission(1, quiet_seconds=0.1)], [])
    async with echo(UnaryUnary=gate, server_interceptors=[inner]) as service:
        held = asyncio.create_task(service.unary())
        await gate.holds(1)
        assert await outcomes(service, 5) == {"RESOURCE_EXHAUSTED": 5}
        while len(log_lines(caplog)) < 2:
            await asyncio.sleep(0.01)
        gate.opened.set()
        await held
    began, ended = log_lines(caplog)
    assert began.startswith("refusing calls: too many calls are unfinished: 1 unfinished")
    assert ended.startswith("admitting all calls again: refused 5 in ")


def learned(*calls: tuple[int, float], finished: bool = True) -> Waiting:
    """An estimate from calls, given by the number ahead and the duration."""
    waiting = Waiting()
    for ahead, duration in calls:
        waiting.learn(ahead, duration, 1.0, finished=finished)
    return waiting


QUEUE = [(ahead, 0.1 + ahead * 0.1) for ahead in range(20)]


def test_a_queue_is_estimated_by_its_length() -> None:
    assert learned(*QUEUE).expected(50, 1.0) == pytest.approx(5.0, rel=0.1)


def test_without_data_and_with_none_ahead_nothing_waits() -> None:
    assert Waiting().expected(1000, 1.0) == 0
    assert learned(*QUEUE).expected(0, 1.0) == 0


def test_calls_that_wait_for_no_other_make_no_estimate() -> None:
    assert learned(*((ahead, 0.1) for ahead in range(50))).expected(1000, 1.0) == 0


def test_an_estimate_is_forgotten_after_idleness() -> None:
    assert learned(*QUEUE).expected(50, 1.1 + FORGET_SECONDS) == 0


def test_a_slow_spell_is_forgotten_after_some_tens_of_quick_calls() -> None:
    waiting = learned(*((ahead, 0.1 + ahead) for ahead in range(20)), *((5, 0.1) for _ in range(64)))
    assert waiting.expected(5, 1.0) < 0.5


def test_calls_that_gave_up_only_raise_the_estimate() -> None:
    waiting = learned(*QUEUE)
    before = waiting.expected(10, 1.0)
    waiting.learn(10, 0.2, 1.0, finished=False)
    assert waiting.expected(10, 1.0) == before
    waiting.learn(10, 30.0, 1.0, finished=False)
    assert waiting.expected(10, 1.0) > before
