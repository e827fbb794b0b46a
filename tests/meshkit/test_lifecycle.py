"""A process that fails drains as after a signal: it finishes the requests in flight."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from meshkit.lifecycle import Stop, serve
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.testing import SpanCapture

SERVICE = "test.Lifecycle"


async def nothing_to_check() -> None:
    pass


async def test_a_server_whose_background_task_fails_finishes_requests_in_flight(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "meshkit.lifecycle")
    began, failed = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, _context: object) -> bytes:
        began.set()
        await failed.wait()
        return request

    async def breaks() -> None:
        await began.wait()
        failed.set()
        raise LookupError("the table is gone")

    handler: Any = grpc.unary_unary_rpc_method_handler(slow)
    handlers: Any = grpc.method_handlers_generic_handler(SERVICE, {"Slow": handler})
    health = Health(SERVICE, nothing_to_check)
    server = build_server(
        services={SERVICE: lambda server: server.add_generic_rpc_handlers((handlers,))},
        health=health,
        telemetry=SpanCapture("server").telemetry,
    )
    server_task = asyncio.create_task(
        serve(
            server,
            listen="127.0.0.1:0",
            health=health,
            stop=Stop(),
            background=[breaks],
            drain_seconds=60,
            grace_seconds=60,
        )
    )
    while not (lines := [record for record in caplog.records if record.getMessage().startswith("listening on")]):
        await asyncio.sleep(0)
    address = lines[0].getMessage().removeprefix("listening on ")
    async with grpc.aio.insecure_channel(address) as channel:
        begin: Any = channel.unary_unary(f"/{SERVICE}/Slow")
        assert await begin(b"begun") == b"begun"
        with pytest.RaisesGroup(pytest.RaisesExc(LookupError, match="the table is gone")):
            await server_task
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await begin(b"late")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address.split(":"))


async def test_a_second_signal_does_not_stop_the_server_twice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """grpc.aio destroys the server in one `stop` while another one runs, which sometimes crashes the process."""
    health, stop, running, most = Health(SERVICE, nothing_to_check), Stop(), 0, 0
    server = build_server(services={}, health=health, telemetry=SpanCapture("server").telemetry)
    stop_server = server.stop

    async def count(grace: float | None) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await stop_server(grace)
        finally:
            running -= 1

    monkeypatch.setattr(server, "stop", count)
    stop.request()
    stop.request()
    await serve(server, listen="127.0.0.1:0", health=health, stop=stop, drain_seconds=60, grace_seconds=60)
    assert most == 1


async def test_a_server_has_default_seconds_for_drain_and_grace() -> None:
    health, stop = Health(SERVICE, nothing_to_check), Stop()
    server = build_server(services={}, health=health, telemetry=SpanCapture("server").telemetry)
    stop.request()
    await serve(server, listen="127.0.0.1:0", health=health, stop=stop)


async def test_a_server_that_stops_refuses_calls_before_it_ends_so_that_none_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """GRPC cancels what it has received and not begun when a server stops, and no client retries that."""
    caplog.set_level("INFO", "meshkit.lifecycle")
    answered = asyncio.Semaphore(0)

    async def echo(request: bytes, _context: object) -> bytes:
        answered.release()
        return request

    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    handlers: Any = grpc.method_handlers_generic_handler(SERVICE, {"Echo": handler})
    health, stop = Health(SERVICE, nothing_to_check), Stop()
    server = build_server(
        services={SERVICE: lambda server: server.add_generic_rpc_handlers((handlers,))},
        health=health,
        telemetry=SpanCapture("server").telemetry,
    )
    server_task = asyncio.create_task(serve(server, listen="127.0.0.1:0", health=health, stop=stop, grace_seconds=60))
    while not (lines := [record for record in caplog.records if record.getMessage().startswith("listening on")]):
        await asyncio.sleep(0)
    address = lines[0].getMessage().removeprefix("listening on ")

    async def call_until_refused() -> str:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Echo")
            while True:
                if (code := await call(b"").code()) is not grpc.StatusCode.OK:
                    return str(code.name)

    clients = [asyncio.create_task(call_until_refused()) for _ in range(16)]
    for _ in range(100):
        await answered.acquire()
    stop.request()
    assert {await client for client in clients} == {"UNAVAILABLE"}
    await server_task
