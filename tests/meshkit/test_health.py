"""grpc.health.v1 follows the checks, and the log has the reasons."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit.lifecycle import running
from meshkit.server.build import build_server
from meshkit.server.health import LIVENESS, Health
from meshkit.testing import SpanCapture, start_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVICE = "test.Service"
Stub = Any  # a HealthStub, whose published types have no methods
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Dependency:
    """A dependency of a service, which a test breaks and repairs."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.checked = asyncio.Event()

    async def check(self) -> None:
        self.checked.set()
        if self.failure:
            raise self.failure


@pytest.fixture
def dependency() -> Dependency:
    return Dependency()


@pytest.fixture
async def health(dependency: Dependency) -> Health:
    return Health(SERVICE, dependency.check, interval=0.01)


@pytest.fixture
async def stub(health: Health) -> AsyncIterator[Stub]:
    server = build_server(services={}, health=health, telemetry=SpanCapture("server").telemetry)
    async with start_server(server) as address, grpc.aio.insecure_channel(address) as channel, running(health.watch):
        yield health_pb2_grpc.HealthStub(channel)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of the health log."""
    return [record.getMessage() for record in caplog.records if record.name == "meshkit.health"]


async def becomes(stub: Stub, name: str, status: int) -> None:
    """Waits until the Watch stream, which clients use for balancing, reports the status."""
    updates = stub.Watch(health_pb2.HealthCheckRequest(service=name))
    try:
        async for update in updates:
            if update.status == status:
                return
    finally:
        updates.cancel()


async def test_a_service_follows_its_dependency(stub: Stub, dependency: Dependency) -> None:
    await becomes(stub, SERVICE, SERVING)
    dependency.failure = ConnectionError("the database is away")
    await becomes(stub, SERVICE, NOT_SERVING)
    await becomes(stub, "", NOT_SERVING)
    dependency.failure = None
    await becomes(stub, SERVICE, SERVING)


async def test_liveness_ignores_dependencies(stub: Stub, dependency: Dependency) -> None:
    dependency.failure = ConnectionError("the database is away")
    await becomes(stub, SERVICE, NOT_SERVING)
    await becomes(stub, LIVENESS, SERVING)


async def test_a_draining_service_stays_not_serving(stub: Stub, health: Health, dependency: Dependency) -> None:
    await becomes(stub, SERVICE, SERVING)
    await health.drain()
    await becomes(stub, SERVICE, NOT_SERVING)
    for _ in range(3):
        dependency.checked.clear()
        await dependency.checked.wait()
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert answer.status == NOT_SERVING
    await becomes(stub, LIVENESS, SERVING)


async def test_a_hanging_check_counts_as_failed(dependency: Dependency) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    health = Health(SERVICE, hang, interval=0.01, timeout=0.01, start_timeout=0.01)
    server = build_server(services={}, health=health, telemetry=SpanCapture("server").telemetry)
    async with start_server(server) as address, grpc.aio.insecure_channel(address) as channel, running(health.watch):
        await becomes(health_pb2_grpc.HealthStub(channel), SERVICE, NOT_SERVING)


async def test_the_reason_for_not_serving_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        raise LookupError("the database cannot be reached") from ConnectionRefusedError("127.0.0.1:5432\nrefused")

    async with running(Health(SERVICE, check, interval=60).watch):
        while not messages(caplog):
            await asyncio.sleep(0)
    assert messages(caplog) == [f"{SERVICE} is NOT_SERVING: the database cannot be reached (127.0.0.1:5432)"]


async def test_a_hanging_check_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async with running(Health(SERVICE, hang, interval=60, start_timeout=0.01).watch):
        while not messages(caplog):
            await asyncio.sleep(0)
    assert messages(caplog) == [f"{SERVICE} is NOT_SERVING: its check took longer than 0.01 s"]


async def test_only_the_first_check_has_the_limit_of_the_start(caplog: pytest.LogCaptureFixture) -> None:
    starting = asyncio.Event()

    async def check() -> None:
        if not starting.is_set():
            starting.set()
            return
        await asyncio.Event().wait()

    caplog.set_level("INFO", "meshkit.health")
    async with running(Health(SERVICE, check, interval=0, timeout=0.01, start_timeout=60).watch):
        while len(messages(caplog)) < 2:
            await asyncio.sleep(0)
    assert messages(caplog) == [
        f"{SERVICE} is SERVING",
        f"{SERVICE} is NOT_SERVING: its check took longer than 0.01 s",
    ]


async def test_a_busy_event_loop_does_not_fail_a_check(caplog: pytest.LogCaptureFixture) -> None:
    """Each step of the check waits for one turn of the loop, and one turn takes longer than the limit of the check."""
    loop, passed = asyncio.get_running_loop(), asyncio.Event()

    def burden() -> None:
        time.sleep(0.02)
        if not passed.is_set():
            loop.call_soon(burden)

    async def check() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        passed.set()

    caplog.set_level("INFO", "meshkit.health")
    burden()
    async with running(Health(SERVICE, check, interval=60, start_timeout=0.01).watch):
        while not messages(caplog):
            await asyncio.sleep(0)
    passed.set()
    assert messages(caplog) == [f"{SERVICE} is SERVING"]


async def test_each_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reasons = iter(["away", "away", "asleep", "asleep", ""])
    done = asyncio.Event()

    async def check() -> None:
        reason = next(reasons, None)
        if reason is None:
            done.set()
        if reason:
            raise ConnectionError(reason)

    caplog.set_level("INFO", "meshkit.health")
    async with running(Health(SERVICE, check, interval=0).watch):
        await done.wait()
    assert messages(caplog) == [
        f"{SERVICE} is NOT_SERVING: away",
        f"{SERVICE} is NOT_SERVING: asleep",
        f"{SERVICE} is SERVING",
    ]
