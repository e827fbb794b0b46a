"""Starts and stops one process, so that no request and no span is lost.

Theory of operation. A process is one coroutine, `main(stop)`, that holds its resources in nested `async with` blocks;
leaving the blocks closes them in the reverse order. `run` gives it the `Stop` that SIGTERM and SIGINT request, and
flushes telemetry after everything else has ended. For a gRPC service, `serve` is the innermost part:

    listen ─ NOT_SERVING ─ checks pass ─ SERVING ─ signal ─ NOT_SERVING ─ drain ─ refuse ─ stop(grace) ─ tasks end

1. The port is bound before anything slow, so a process whose database is away lives and answers health checks.
2. On the first signal the service turns NOT_SERVING, and goes on serving for `drain_seconds`: clients and load
   balancers need that long to look elsewhere, and what is already on the wire still gets its answer.
3. Further RPCs are refused, for a moment (`meshkit.server.closing`). Then `server.stop(grace)` lets RPCs in flight
   finish for up to `grace_seconds`, and cancels the rest.
4. Background tasks, channels and databases close; then the last spans are exported; then the process exits with 0.

A second signal skips the waiting of 2 and 3. drain + grace + flush + 2 s must fit into the grace period of whoever
sends SIGKILL next.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from meshkit import addresses
from meshkit.config import DRAIN_SECONDS, GRACE_SECONDS
from meshkit.telemetry.loop import watch_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    import grpc

    from meshkit.server.health import Health
    from meshkit.telemetry.provider import Telemetry

log = logging.getLogger("meshkit.lifecycle")


class AddressInUse(Exception):
    """The address to listen on cannot be bound."""


class Stop:
    """What the signals ask for: to stop, and after a second one to hurry."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.hurried = asyncio.Event()

    def request(self) -> None:
        """Asks to stop; asked again, to hurry."""
        (self.hurried if self.requested.is_set() else self.requested).set()

    async def pause(self, seconds: float) -> None:
        """Waits `seconds`, or shorter in a hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hurried.wait()


def run(
    main: Callable[[Stop], Awaitable[None]],
    telemetry: Telemetry,
) -> int:
    """Runs `main` until it ends, then flushes telemetry.

    Args:
        main: serves until it is asked to stop.
        telemetry: of the process.

    Returns:
        The exit status: 0, or 1 if it could not serve.
    """
    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(_run(main, telemetry))


def event_loop() -> asyncio.AbstractEventLoop:
    """A new event loop: uvloop's, or asyncio's own where there is no uvloop, as on Windows."""
    try:
        import uvloop  # noqa: PLC0415 - it is not everywhere
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _run(main: Callable[[Stop], Awaitable[None]], telemetry: Telemetry) -> int:
    stop, loop = Stop(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.request)
    watching = asyncio.create_task(watch_loop(telemetry.meter))
    try:
        await main(stop)
    except AddressInUse as error:
        print(error, file=sys.stderr)  # noqa: T201 - for whoever started it by hand
        return 1
    finally:
        watching.cancel()
        await telemetry.shutdown()
    return 0


async def serve(
    server: grpc.aio.Server,
    *,
    listen: str,
    health: Health,
    stop: Stop,
    credentials: grpc.ServerCredentials | None = None,
    background: Sequence[Callable[[], Awaitable[None]]] = (),
    drain_seconds: float = DRAIN_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """Serves until `stop` is requested, then drains and stops the server.

    Args:
        server: built and not yet listening.
        listen: `host:port`; port 0 takes a free one, the log says which.
        health: decides between SERVING and NOT_SERVING.
        stop: when to end.
        credentials: for TLS, such as `grpc.ssl_server_credentials(…)`; plain text without.
        background: coroutines that run beside the server and are cancelled after it. One that fails ends the process,
            which answers the RPCs in flight first.
        drain_seconds: how long to go on serving after NOT_SERVING.
        grace_seconds: how long RPCs in flight may take after that.

    Raises:
        AddressInUse: `listen` cannot be bound.
    """
    address = addresses.resolve(listen)._replace(port=bind(server, listen, credentials))
    await serve_bound(
        server,
        address,
        health=health,
        stop=stop,
        background=background,
        drain_seconds=drain_seconds,
        grace_seconds=grace_seconds,
    )


async def serve_bound(
    server: grpc.aio.Server,
    address: addresses.HostPort,
    *,
    health: Health,
    stop: Stop,
    background: Sequence[Callable[[], Awaitable[None]]] = (),
    drain_seconds: float = DRAIN_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """As `serve`, for a server that is bound to an address."""
    await server.start()
    log.info("listening on %s", address, extra={"port": address.port})
    async with running(health.watch, *background):
        try:
            await stop.requested.wait()
            log.info("draining")
            await health.drain()
            await stop.pause(drain_seconds)
        finally:  # or something in the background has failed
            await health.closing.refuse(stop.hurried)
            await _stop(server, stop, grace_seconds)
    log.info("stopped")


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None = None) -> int:
    """Binds the server to `host:port`, for TLS if there are credentials, and returns the port. Raises AddressInUse."""
    try:
        address = str(addresses.resolve(listen))
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except OSError as error:
        raise AddressInUse(f"cannot listen on {listen}: {addresses.reason(error)}") from error
    except RuntimeError as error:
        hint = "is the port taken, or the host not of this machine"
        if credentials:
            hint += ", and do the key and the certificate belong together"
        raise AddressInUse(f"cannot listen on {listen}: {hint}?") from error


@asynccontextmanager
async def running(*coroutines: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Runs coroutines beside the block and cancels them at its end; one that fails cancels the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(coroutine)) for coroutine in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _awaited(coroutine: Callable[[], Awaitable[None]]) -> None:
    await coroutine()


async def _stop(server: grpc.aio.Server, stop: Stop, grace_seconds: float) -> None:
    """Stops the server with its grace, or at once in a hurry.

    Never with two calls of its `stop` at a time: the one destroys the server in which the other then cancels RPCs,
    which is a segmentation fault.
    """
    stopping = asyncio.create_task(server.stop(grace_seconds))
    hurry = asyncio.create_task(stop.hurried.wait())
    await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    hurry.cancel()
    await asyncio.wait({stopping, hurry})
    await server.stop(None)
