"""Makes the call of one cell between a real client and a real server, and records the result.

Each cell has its own process, which runs both client and server. A side that is killed, or that continues while this
process is stopped, runs in a second process.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from meshkit.client.channel import open_channel
from meshkit.testing import SpanCapture
from tests.conformance.callers import LEAVE, Caller, method, outcome
from tests.conformance.handlers import Script, handler
from tests.conformance.observing import Listener, Observation, root, spans, until
from tests.meshkit.echo import SERVICE, Echo, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from multiprocessing.connection import Connection

    from meshkit.telemetry import Instrumentation
    from tests.conformance.observing import Span
    from tests.conformance.table import Ending, Outcome, Row


@dataclass(frozen=True)
class Cell:
    """One call to make: its row, its column, the instrumentation, and seconds to wait for the expected events."""

    row: Row
    ending: Ending
    instrumentation: Instrumentation
    patience: float

    @property
    def outcome(self) -> Outcome:
        return self.ending.outcome

    def caller(self, channel: Any) -> Caller:
        open_end = self.ending.handler != "answers"
        requests = (
            itertools.repeat(b"1") if self.ending.caller == "writes on" else (b"1",) if open_end else (b"1", b"2")
        )
        return Caller(self.row, channel, timeout=self.ending.timeout, requests=requests, open_end=open_end)

    def channel(self, address: str, client: SpanCapture) -> Any:
        return open_channel(address, service=SERVICE, repeatable=(), limit=5, telemetry=client.telemetry)

    @asynccontextmanager
    async def start_server(self) -> AsyncIterator[tuple[Echo, Script]]:
        script = Script(self.ending.handler)
        served: dict[str, Any] = {method(self.row): handler(self.row, script)}
        async with echo(instrumentation=self.instrumentation, **served) as service:
            yield service, script


def run(cell: Cell, report: Connection, peer: Connection | None = None) -> None:
    """Runs a cell and reports it: the target of a process."""
    listener = Listener()
    logging.getLogger().addHandler(listener)
    logging.captureWarnings(capture=True)
    gc.freeze()
    observation = asyncio.run(see(cell, peer), debug=True)
    gc.collect()
    report.send(replace(observation, logged=tuple(listener.lines)))


async def see(cell: Cell, peer: Connection | None) -> Observation:
    """Makes the call and waits until all of it has ended."""
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is not a fault of the call
    observation = await SCENES.get(cell.ending.caller, in_one_process)(cell, peer)
    gc.collect()
    await until(lambda: len(asyncio.all_tasks()) == 1, cell.patience)
    return observation


async def in_one_process(cell: Cell, _: Connection | None) -> Observation:
    async with cell.start_server() as (service, script):
        await service.channel.channel_ready()
        with root(service.client) as parent, cell.caller(service.channel) as caller:
            ended = await outcome(LEAVE[cell.ending.caller](caller, script, service))
            observation = await wait_for_events(cell, ended, parent, service.client, service.server, script)
    return count_spans(observation, service.client, service.server)


async def with_a_server_to_kill(cell: Cell, peer: Any) -> Observation:
    client = SpanCapture("client", cell.instrumentation)
    process, address = await asyncio.to_thread(peer.recv)
    async with cell.channel(address, client) as channel:
        await channel.channel_ready()
        with root(client) as parent, cell.caller(channel) as caller:
            task = asyncio.create_task(caller.run())
            await until(lambda: peer.poll() or task.done(), cell.patience + cell.ending.timeout)
            os.kill(process, signal.SIGKILL)
            ended = await outcome(task)
            observation = await wait_for_events(cell, ended, parent, client)
    return count_spans(observation, client)


async def with_a_client_to_kill(cell: Cell, peer: Any) -> Observation:
    async with cell.start_server() as (service, script):
        peer.send(service.address)
        process, parent = await asyncio.to_thread(peer.recv)
        peer.send("call")
        await until(script.started.is_set, cell.ending.timeout)
        os.kill(process, signal.SIGKILL)
        observation = await wait_for_events(cell, "", parent, service.client, service.server, script)
    return count_spans(observation, service.client, service.server)


async def with_a_server_that_stands_still(cell: Cell, peer: Any) -> Observation:
    async with cell.start_server() as (service, script):
        peer.send(service.address)
        _, parent = await asyncio.to_thread(peer.recv)
        peer.send("call")
        ended, client = peer.recv()  # from here this whole process is stopped
        time.sleep(cell.ending.timeout)  # noqa: ASYNC251 - the deadline counts from the arrival of the call
        observation = await wait_for_events(cell, ended, parent, service.client, service.server, script)
    return replace(count_spans(observation, service.client, service.server), client=client)


async def with_nobody(cell: Cell, _: Connection | None) -> Observation:
    client = SpanCapture("client", cell.instrumentation)
    async with cell.start_server() as (service, script):
        address = service.address
    async with cell.channel(address, client) as channel:
        with root(client) as parent, cell.caller(channel) as caller:
            ended = await outcome(caller.run())
            observation = await wait_for_events(cell, ended, parent, client, service.server, script)
    return count_spans(observation, client, service.server)


SCENES: dict[str, Callable[[Cell, Connection | None], Awaitable[Observation]]] = {
    "kills the server": with_a_server_to_kill,
    "is killed": with_a_client_to_kill,
    "is early": with_a_server_that_stands_still,
    "finds nobody": with_nobody,
}


def serve_afar(cell: Cell, pipe: Connection) -> None:
    """Serves until it is killed: the target of a second process."""

    async def serve() -> None:
        async with cell.start_server() as (service, script):
            pipe.send((os.getpid(), service.address))
            await script.started.wait()
            pipe.send("started")
            await asyncio.Event().wait()

    asyncio.run(serve())


def call_afar(cell: Cell, pipe: Connection) -> None:
    """Calls on a command, reports the result, and waits to be killed: the target of a second process."""

    async def call() -> None:
        client = SpanCapture("client", cell.instrumentation)
        async with cell.channel(pipe.recv(), client) as channel:
            await channel.channel_ready()
            with root(client) as parent, cell.caller(channel) as caller:
                pipe.send((os.getpid(), parent))
                pipe.recv()
                ended = await outcome(caller.run())
                await until(lambda: bool(spans(client, SpanKind.CLIENT)), cell.patience)
            pipe.send((ended, spans(client, SpanKind.CLIENT)))
            pipe.recv()

    asyncio.run(call())


PEERS = {"kills the server": serve_afar, "is killed": call_afar, "is early": call_afar}
"""The target of the second process, for the endings that need one."""


async def wait_for_events(
    cell: Cell,
    ended: str,
    parent: Span,
    client: SpanCapture,
    server: SpanCapture | None = None,
    script: Script | None = None,
) -> Observation:
    """The observation after every expected event, or after the patience."""
    wanted, server = cell.outcome, server or SpanCapture("none")
    client_is_here = cell.ending.caller not in {"is killed", "is early"}

    def all_has_happened() -> bool:
        return (
            len(spans(client, SpanKind.CLIENT)) >= (client_is_here and wanted.client is not None)
            and len(spans(server, SpanKind.SERVER)) >= (wanted.server is not None)
            and (script is None or not script.started.is_set() or script.over.is_set())
        )

    await until(all_has_happened, cell.patience)
    return Observation(
        ended,
        parent,
        spans(client, SpanKind.CLIENT),
        spans(server, SpanKind.SERVER),
        started=script is not None and script.started.is_set(),
        cancelled=script is not None and script.cancelled,
        remaining=script.remaining if script else 0,
    )


def count_spans(observation: Observation, client: SpanCapture, server: SpanCapture | None = None) -> Observation:
    """Adds the number of spans after the teardown."""
    servers = spans(server, SpanKind.SERVER) if server else ()
    return replace(observation, in_the_end=(len(spans(client, SpanKind.CLIENT)), len(servers)))
