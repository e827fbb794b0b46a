"""Runs one service as a process: settings, logs, telemetry, what the service itself builds, and its end.

A service brings its settings, and `build`, an async context manager that opens what the service needs, yields what
can serve, and closes it all again. Tests enter `build`, too. Its `__main__.py` is one call:

    main("pricing", Settings, build)
"""

from __future__ import annotations

import gc
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from meshkit.logs import configure_logs  # the first: see GRPC_VERBOSITY there

# isort: split
from meshkit import lifecycle
from meshkit.command_line import read_arguments
from meshkit.config import load_settings
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.telemetry import configure
from meshkit.unknown_variables import warn_of_unknown_variables

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    import grpc

    from meshkit.api import Api
    from meshkit.config import GrpcSettings, ProcessSettings
    from meshkit.lifecycle import Stop
    from meshkit.telemetry import Telemetry

Settings = TypeVar("Settings", bound="ProcessSettings")


class App(Protocol):
    """A service that is built and not yet listening."""

    async def serve(self, stop: Stop) -> None:
        """Serves until `stop` is requested, then drains. Raises AddressInUse."""


@dataclass(frozen=True)
class GrpcApp:
    """An App on a gRPC server.

    Attributes:
        settings: say where to listen, and how long to drain.
        server: the gRPC server, with its servicers, health and reflection already added.
        health: NOT_SERVING until the check passes.
        check: raises while the service cannot serve.
        background: coroutines that run beside the server, see `lifecycle.serve`.
        credentials: for TLS; plain text without.
    """

    settings: ProcessSettings
    server: grpc.aio.Server
    health: Health
    check: Callable[[], Awaitable[None]]
    background: Sequence[Callable[[], Awaitable[None]]] = ()
    credentials: grpc.ServerCredentials | None = None

    async def serve(self, stop: Stop) -> None:
        """See App."""
        await lifecycle.serve(
            self.server,
            listen=self.settings.listen,
            health=self.health,
            stop=stop,
            credentials=self.credentials,
            background=self.background,
            drain_seconds=self.settings.drain_seconds,
            grace_seconds=self.settings.grace_seconds,
        )


GARBAGE = 10_000
"""The number of new objects after which the garbage collector looks at them."""


def utc_now() -> datetime:
    """The present time."""
    return datetime.now(UTC)


async def always_ready() -> None:
    """The check of a service that depends on nothing."""


def grpc_app(
    api: Api,
    add: Callable[[grpc.aio.Server], None],
    settings: GrpcSettings,
    telemetry: Telemetry,
    *,
    check: Callable[[], Awaitable[None]] = always_ready,
    background: Sequence[Callable[[], Awaitable[None]]] = (),
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    options: Sequence[tuple[str, int | str]] = (),
) -> GrpcApp:
    """A gRPC service with health and reflection.

    Args:
        api: the service.
        add: adds its servicer to a server.
        settings: of the process.
        telemetry: of the process.
        check: raises while the service cannot serve.
        background: coroutines that run beside the server, see `lifecycle.serve`.
        credentials: for TLS, such as `grpc.ssl_server_credentials(…)`; plain text without.
        interceptors: gRPC's, see `build_server`, as for the next.
        options: of gRPC's core.
    """
    health = Health(api.name, check)
    server = build_server(
        services={api.name: add},
        health=health,
        telemetry=telemetry,
        max_pending=settings.max_pending,
        interceptors=interceptors,
        options=options,
    )
    return GrpcApp(settings, server, health, check, background, credentials)


def main(
    name: str,
    settings_class: type[Settings],
    build: Callable[[Settings, Telemetry], AbstractAsyncContextManager[App]],
    *,
    has_metrics_route: bool = False,
    set_global: bool = False,
) -> None:
    """Runs a service until SIGTERM or SIGINT, then ends the process.

    Its exit status is 0; 1 if it could not serve; 2 for a variable with a wrong value or an unknown argument. The
    argument `--help` lists the settings and starts nothing.

    Args:
        name: of the service, in logs and traces.
        settings_class: is read from the environment.
        build: makes the service of its settings and its telemetry.
        has_metrics_route: whether the service itself shows its metrics, besides the page on `metrics_listen`.
        set_global: whether its telemetry is the global one too, see `configure`.
    """
    read_arguments(name, settings_class, sys.argv[1:])
    settings = load_settings(settings_class)
    configure_logs(name, settings.log_level)
    warn_of_unknown_variables(name, settings_class)
    prometheus = has_metrics_route or bool(settings.metrics_listen)
    telemetry = configure(name, instrumentation=settings.telemetry, prometheus=prometheus, set_global=set_global)

    async def serve(stop: Stop) -> None:
        async with _metrics_page(telemetry, settings.metrics_listen), build(settings, telemetry) as app:
            _settle_garbage_collector()
            await app.serve(stop)

    sys.exit(lifecycle.run(serve, telemetry))


def _settle_garbage_collector() -> None:
    """Lets the collector skip what lives as long as the process, and run less often. A program may import without it.

    A request leaves spans until their export, which the default of 700 objects would look at in the meantime.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
    gc.enable()


def _metrics_page(telemetry: Telemetry, listen: str) -> AbstractAsyncContextManager[None]:
    """Serves the metrics during the block, also while the service starts, is NOT_SERVING or drains."""
    if not (listen and telemetry.page):
        return nullcontext()
    from meshkit.http.metrics_page import serving_metrics  # noqa: PLC0415 - an extra

    return serving_metrics(telemetry.page, listen)
