"""Makes the calls of a group of cells between a real client and a real server, and records the results.

A group is the cells of one column, with one instrumentation. It has its own process, which runs both client and server,
and makes all its calls at the same time. A side that is killed, or that continues while this process is stopped, runs
in a second process. Each cell has a method of its own, by which its spans and log lines are told apart.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from meshkit.testing import SpanCapture
from tests.conformance.callers import LEAVE, outcome
from tests.conformance.cell import connect, count_spans, observe, serve
from tests.conformance.observing import Listener, Observation, root, spans, until
from tests.thread_checks import check_threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.connection import Connection

    from tests.conformance.cell import Cell, Group, Served
    from tests.conformance.observing import Span


def run(group: Group, report: Connection, peer: Connection | None = None) -> None:
    """Runs a group and reports its observations in order: the target of a process."""
    listener = Listener()
    logging.getLogger().addHandler(listener)
    logging.captureWarnings(capture=True)
    gc.freeze()
    gc.disable()  # a call that its caller has left goes on until it is collected, which other cells must not cause
    observations = asyncio.run(see(group, peer))
    gc.collect()
    report.send(
        [replace(each, logged=listener.about(cell.method)) for cell, each in zip(group, observations, strict=True)]
    )


async def see(group: Group, peer: Connection | None) -> list[Observation]:
    """Makes the calls and waits until all of them have ended."""
    check_threads(asyncio.get_running_loop())
    observations = await SCENES.get(group[0].ending.caller, in_one_process)(group, peer)
    gc.collect()
    await until(lambda: len(asyncio.all_tasks()) == 1, min(cell.patience for cell in group))
    return observations


async def in_one_process(group: Group, _: Connection | None) -> list[Observation]:
    async def call(cell: Cell) -> Observation:
        service, script = served[cell.method].service, served[cell.method].script
        await service.channel.channel_ready()
        with root(service.client) as parent, cell.caller(service.channel) as caller:
            ended = await outcome(LEAVE[cell.ending.caller](caller, script, service))
            return await observe(cell, ended, parent, service.client, served[cell.method])

    async with serve(group) as served:
        observations = await gather(call, group)
    return [
        count_spans(cell, observation, served[cell.method].service.client, served[cell.method])
        for cell, observation in zip(group, observations, strict=True)
    ]


async def with_a_server_to_kill(group: Group, peer: Any) -> list[Observation]:
    client = SpanCapture("client", group[0].instrumentation, provider=group[0].provider)
    process, address = await asyncio.to_thread(peer.recv)
    started, all_started = set(), asyncio.Barrier(len(group))

    def has_started(cell: Cell) -> bool:
        while peer.poll():
            started.add(peer.recv())
        return cell.method in started

    async def call(cell: Cell) -> Observation:
        with root(client) as parent, cell.caller(channel) as caller:
            task = asyncio.create_task(caller.run())
            await until(lambda: task.done() or has_started(cell), cell.patience + cell.timeout)
            if await all_started.wait() == 0:
                os.kill(process, signal.SIGKILL)
            return await observe(cell, await outcome(task), parent, client, None)

    async with connect(address, client) as channel:
        await channel.channel_ready()
        observations = await gather(call, group)
    return [count_spans(cell, each, client, None) for cell, each in zip(group, observations, strict=True)]


async def with_a_client_to_kill(group: Group, peer: Any) -> list[Observation]:
    ended: set[str] = set()

    def all_have_started() -> bool:
        while peer.poll():
            ended.add(peer.recv()[0])
        return all(each.script.started.is_set() or method in ended for method, each in served.items())

    async def see(cell: Cell) -> Observation:
        return await observe(cell, "", parents[cell.method], nothing, served[cell.method])

    nothing = SpanCapture("killed")
    async with serve(group) as served:
        process, parents = await meet_the_client(peer, served)
        peer.send("call")
        await until(all_have_started, group[0].timeout)
        os.kill(process, signal.SIGKILL)
        observations = await gather(see, group)
    return [
        count_spans(cell, each, nothing, served[cell.method]) for cell, each in zip(group, observations, strict=True)
    ]


async def with_a_server_that_stands_still(group: Group, peer: Any) -> list[Observation]:
    async def see(cell: Cell) -> Observation:
        return await observe(cell, ends[cell.method][0], parents[cell.method], nothing, served[cell.method])

    nothing = SpanCapture("elsewhere")
    async with serve(group) as served:
        _, parents = await meet_the_client(peer, served)
        peer.send("call")
        ends = {method: end for method, *end in [peer.recv() for _ in group]}  # this whole process is stopped
        time.sleep(group[0].timeout)  # noqa: ASYNC251 - the deadline counts from the arrival of the call
        observations = await gather(see, group)
    return [
        replace(count_spans(cell, each, nothing, served[cell.method]), client=ends[cell.method][1])
        for cell, each in zip(group, observations, strict=True)
    ]


async def meet_the_client(peer: Any, served: dict[str, Served]) -> tuple[int, dict[str, Span]]:
    """Tells a second process which server has each method; returns the id of the process, and its callers' spans."""
    peer.send({method: each.service.address for method, each in served.items()})
    process = await asyncio.to_thread(peer.recv)
    return process, dict([await asyncio.to_thread(peer.recv) for _ in served])


async def with_nobody(group: Group, _: Connection | None) -> list[Observation]:
    async def call(cell: Cell) -> Observation:
        with root(client) as parent, cell.caller(channel) as caller:
            ended = await outcome(caller.run())
            return await observe(cell, ended, parent, client, served[cell.method])

    client = SpanCapture("client", group[0].instrumentation, provider=group[0].provider)
    async with serve(group) as served:
        address = served[group[0].method].service.address
    async with connect(address, client) as channel:
        observations = await gather(call, group)
    return [
        count_spans(cell, each, client, served[cell.method]) for cell, each in zip(group, observations, strict=True)
    ]


async def gather(see: Callable[[Cell], Awaitable[Observation]], group: Group) -> list[Observation]:
    return await asyncio.gather(*map(see, group))


SCENES: dict[str, Callable[[Group, Connection | None], Awaitable[list[Observation]]]] = {
    "kills the server": with_a_server_to_kill,
    "is killed": with_a_client_to_kill,
    "is early": with_a_server_that_stands_still,
    "finds nobody": with_nobody,
}


def serve_afar(group: Group, pipe: Connection) -> None:
    """Serves until it is killed: the target of a second process."""

    async def report(method: str, served: Served) -> None:
        await served.script.started.wait()
        pipe.send(method)

    async def serve_until_killed() -> None:
        async with serve(group) as served:
            pipe.send((os.getpid(), served[group[0].method].service.address))
            await asyncio.gather(*itertools.starmap(report, served.items()))
            await asyncio.Event().wait()

    asyncio.run(serve_until_killed())


def call_afar(group: Group, pipe: Connection) -> None:
    """Calls on a command, reports the results, and waits to be killed: the target of a second process."""
    client, commanded = SpanCapture("client", group[0].instrumentation, provider=group[0].provider), asyncio.Event()

    async def call(cell: Cell, channel: Any) -> None:
        with root(client) as parent, cell.caller(channel) as caller:
            pipe.send((cell.method, parent))
            await commanded.wait()
            ended = await outcome(caller.run())
            await until(lambda: bool(spans(client, SpanKind.CLIENT, cell.method)), cell.patience)
        pipe.send((cell.method, ended, spans(client, SpanKind.CLIENT, cell.method)))

    async def call_until_killed() -> None:
        addresses: dict[str, str] = pipe.recv()
        async with AsyncExitStack() as running:
            channels = {
                address: await running.enter_async_context(connect(address, client))
                for address in set(addresses.values())
            }
            for channel in channels.values():
                await channel.channel_ready()
            pipe.send(os.getpid())
            calls = asyncio.gather(*(call(cell, channels[addresses[cell.method]]) for cell in group))
            await asyncio.to_thread(pipe.recv)
            commanded.set()
            await calls
            pipe.recv()

    asyncio.run(call_until_killed())


PEERS = {"kills the server": serve_afar, "is killed": call_afar, "is early": call_afar}
"""The target of the second process, for the endings that need one."""
