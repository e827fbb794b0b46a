"""Builds grpc.aio servers: options, health, reflection, and the list of what surrounds each handler: `concerns`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection

from meshkit.server.deadlines import deadlines
from meshkit.server.errors import errors
from meshkit.server.handlers import HandlerInterceptor
from meshkit.server.tracing import tracing, unknown_method_tracing
from meshkit.telemetry import contrib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshkit.server.health import Health
    from meshkit.server.types import Concern
    from meshkit.telemetry.provider import Telemetry

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # the default lets a second server take the port silently
    ("grpc.max_connection_age_ms", 60_000),  # clients look for new replicas when a connection ends
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_metadata_size", 32 * 1024),  # the default, 8 KiB, is less than W3C's baggage and trace state may have
)


def build_server(
    *,
    services: dict[str, Callable[[grpc.aio.Server], None]],
    health: Health,
    telemetry: Telemetry,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    options: Sequence[tuple[str, int | str]] = (),
) -> grpc.aio.Server:
    """A server with its services, grpc.health.v1 and reflection, not yet listening. The caller stops it.

    It has no credentials: a port has them, so `meshkit.lifecycle.serve` takes them.

    Args:
        services: for each full service name, what adds its servicer to the server.
        health: the health servicer.
        telemetry: whose spans the RPCs make.
        interceptors: gRPC's; each RPC, health checks and reflection included, passes through them in this order, see
            `concerns` for where.
        options: of gRPC's core. One that meshkit sets, too (`OPTIONS`), has the value given here.
    """
    surround = HandlerInterceptor(concerns(telemetry), unknown_method_concerns(telemetry))
    server = grpc.aio.server(
        interceptors=[surround, *interceptors, *contrib.server_interceptors(telemetry)],
        options=[*{**dict(OPTIONS), **dict(options)}.items()],
    )
    for add in services.values():
        add(server)
    health.add_to(server)
    reflection.enable_server_reflection([*services, reflection.SERVICE_NAME, *health.service_names()], server)
    return server


def concerns(telemetry: Telemetry) -> list[Concern]:
    """What surrounds each handler, the outermost first.

    Tracing sees how every RPC ends; errors turns what the handler raises into a status; deadlines refuses what comes
    too late and opens the budget of the rest. Within all three are gRPC's interceptors: those given to `build_server`,
    then contrib's if chosen. So a ServiceError that an interceptor raises is the status of the RPC, and in its span.
    """
    own_tracing = [] if contrib.is_chosen(telemetry) else [tracing(telemetry)]
    return [*own_tracing, errors, deadlines]


def unknown_method_concerns(telemetry: Telemetry) -> list[Concern]:
    """What surrounds the response to a method that the server does not have; contrib traces none."""
    return [] if contrib.is_chosen(telemetry) else [unknown_method_tracing(telemetry)]
