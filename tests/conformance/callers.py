"""Callers of every form that grpc.aio offers, and the ways in which they leave a call."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any, Self

import grpc

from meshkit.deadline import budget
from tests.meshkit.echo import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from tests.conformance.handlers import Script
    from tests.conformance.table import Row
    from tests.meshkit.echo import Echo


class Caller:
    """Makes one call in the form of a row.

    It sends the first request, or all requests of a stream. With `open_end` it keeps the stream open until the end of a
    `with`. It sets `waits` once it has sent everything and has the first response of a stream: at some moments before
    that, grpc.aio does not notice the cancellation of a task.
    """

    def __init__(self, row: Row, channel: Any, *, timeout: float, requests: Iterable[bytes], open_end: bool) -> None:
        self._row = row
        self._channel = channel
        self._timeout = timeout
        self._requests = requests
        self._open_end = open_end
        self._let_go = asyncio.Event()
        self.waits = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._let_go.set()

    async def run(self) -> None:
        """Makes the call and waits for its end."""
        await self.finish(self.begin())

    def begin(self) -> Any:
        """Starts the call and returns it."""
        make = getattr(self._channel, self._row.arity.replace("-", "_"))(f"/{SERVICE}/{self._row.method}")
        if not self._row.streams_requests:
            return make(b"1", timeout=self._timeout)
        return make(self._request_iterator() if "iterator" in self._row.caller else None, timeout=self._timeout)

    async def finish(self, call: Any) -> None:
        """Sends the requests and reads every response."""
        await self._write(call)
        if not self._row.streams_responses:
            self.waits.set()
            await call
        elif "read" in self._row.caller:
            while await call.read() is not grpc.aio.EOF:
                self.waits.set()
        else:
            async for _ in call:
                self.waits.set()

    async def take_one(self, call: Any) -> None:
        """Reads the first response of a stream and stops."""
        await self._write(call)
        if "read" in self._row.caller:
            await call.read()
            return
        async for _ in call:
            break

    async def _write(self, call: Any) -> None:
        if "write" not in self._row.caller:
            return
        with contextlib.suppress(
            asyncio.InvalidStateError
        ):  # the call has ended; the reader of its responses gets the error
            for request in self._requests:
                await call.write(request)
            if not self._open_end:
                await call.done_writing()

    async def _request_iterator(self) -> AsyncIterator[bytes]:
        for request in self._requests:
            yield request
        if self._open_end:
            await self._let_go.wait()


async def outcome(ending: Awaitable[None]) -> str:
    """How the call ended for its caller: a status code, or the name of an exception."""
    try:
        await ending
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    except asyncio.CancelledError:
        return "CANCELLED"
    except Exception as error:  # noqa: BLE001 - the table reports it
        return type(error).__name__
    return "OK"


async def until_started(caller: Caller, script: Script, call: asyncio.Task[None]) -> None:
    """Waits until the caller waits for the handler, or the call has ended without it."""

    async def both() -> None:
        await caller.waits.wait()
        await script.started.wait()

    waiting = asyncio.create_task(both())
    await asyncio.wait({waiting, call}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def stay(caller: Caller, script: Script, service: Echo) -> None:
    await caller.run()


async def cancel_task(caller: Caller, script: Script, service: Echo) -> None:
    task = asyncio.create_task(caller.run())
    await until_started(caller, script, task)
    task.cancel()
    await task


async def cancel_call(caller: Caller, script: Script, service: Echo) -> None:
    call = caller.begin()
    task = asyncio.create_task(caller.finish(call))
    await until_started(caller, script, task)
    call.cancel()
    await task


async def time_out(caller: Caller, script: Script, service: Echo) -> None:
    async with asyncio.timeout(None) as limit:
        task = asyncio.create_task(caller.run())
        await until_started(caller, script, task)
        limit.reschedule(0)
        await task


async def fail_sibling(caller: Caller, script: Script, service: Echo) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(caller.run())
        await until_started(caller, script, task)
        raise LookupError


async def break_and_cancel(caller: Caller, script: Script, service: Echo) -> None:
    call = caller.begin()
    try:
        await caller.take_one(call)
        await script.started.wait()
    finally:
        call.cancel()


async def break_and_drop(caller: Caller, script: Script, service: Echo) -> None:
    call = caller.begin()
    await caller.take_one(call)
    await script.started.wait()
    del call
    gc.collect()


async def close_channel(caller: Caller, script: Script, service: Echo) -> None:
    task = asyncio.create_task(caller.run())
    await until_started(caller, script, task)
    await service.channel.close()
    await task


async def stop_server(caller: Caller, script: Script, service: Echo) -> None:
    task = asyncio.create_task(caller.run())
    await until_started(caller, script, task)
    await service.running.stop(None)
    await task


async def call_on_a_spent_budget(caller: Caller, script: Script, service: Echo) -> None:
    with budget(0):
        await caller.run()


LEAVE: dict[str, Callable[[Caller, Script, Echo], Awaitable[None]]] = {
    "stays": stay,
    "writes on": stay,
    "has no time": call_on_a_spent_budget,
    "task.cancel": cancel_task,
    "call.cancel": cancel_call,
    "asyncio.timeout": time_out,
    "TaskGroup": fail_sibling,
    "breaks": break_and_cancel,
    "drops": break_and_drop,
    "channel.close": close_channel,
    "server.stop": stop_server,
}
