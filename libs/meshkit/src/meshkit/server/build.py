"""Builds grpc.aio servers: options, health, reflection, and the list of what surrounds each handler: `concerns`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection

from meshkit.config import MAX_PENDING
from meshkit.operation_batches import free_batches
from meshkit.server.admission import admission
from meshkit.server.deadlines import deadlines
from meshkit.server.errors import errors
from meshkit.server.handlers import HandlerInterceptor
from meshkit.server.tracing import tracing, unknown_method_tracing
from meshkit.telemetry import contrib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshkit.server.closing import Closing
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
    ("grpc.max_concurrent_streams", 100),  # gRPC's core refuses more; `meshkit.client.spread` stays below
    ("grpc.max_receive_message_length", 256 * 1024),  # a larger request is RESOURCE_EXHAUSTED
    ("grpc.max_metadata_size", 32 * 1024),  # the default, 8 KiB, is less than W3C's baggage and trace state may have
)

MAX_UNACCEPTED = 10_000
"""Calls that may wait in gRPC's core for this process to accept them, above `max_pending`.

From 1000 on gRPC's core would refuse some at random, without a span and without RetryInfo.
https://github.com/grpc/grpc/blob/v1.82.0/src/core/server/server.h, GRPC_ARG_SERVER_MAX_PENDING_REQUESTS
"""


def build_server(
    *,
    services: dict[str, Callable[[grpc.aio.Server], None]],
    health: Health,
    telemetry: Telemetry,
    max_pending: int = MAX_PENDING,
    own_traces: bool = False,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    options: Sequence[tuple[str, int | str]] = (),
) -> grpc.aio.Server:
    """A server with its services, grpc.health.v1 and reflection, not yet listening. The caller stops it.

    It has no credentials: a port has them, so `meshkit.lifecycle.serve` takes them.

    Args:
        services: for each full service name, what adds its servicer to the server.
        health: the health servicer.
        telemetry: whose spans the RPCs make.
        max_pending: the most unfinished calls, see `meshkit.server.admission`.
        own_traces: whether every call begins a trace of its own, which is only linked to the caller's. contrib's
            interceptors ignore it.
        interceptors: gRPC's; each RPC, health checks and reflection included, passes through them in this order, see
            `concerns` for where.
        options: of gRPC's core. One that meshkit sets, too (`OPTIONS`), has the value given here.
    """
    free_batches()
    surround = HandlerInterceptor(
        concerns(telemetry, max_pending, health.closing, own_traces=own_traces),
        unknown_method_concerns(telemetry, own_traces=own_traces),
    )
    server = grpc.aio.server(
        interceptors=[surround, *interceptors, *contrib.server_interceptors(telemetry)],
        options=[*{**dict(OPTIONS), **dict(_backlog(max_pending)), **dict(options)}.items()],
    )
    for add in services.values():
        add(server)
    health.add_to(server)
    reflection.enable_server_reflection([*services, reflection.SERVICE_NAME, *health.service_names()], server)
    return server


def concerns(telemetry: Telemetry, max_pending: int, closing: Closing, *, own_traces: bool = False) -> list[Concern]:
    """What surrounds each handler, the outermost first.

    Tracing sees how every RPC ends; admission counts the unfinished calls and refuses those that cannot be finished in
    time; errors turns what the handler raises into a status; closing refuses what comes just before the server stops;
    deadlines refuses what comes too late and opens the budget of the rest. Within all five are gRPC's interceptors:
    those given to `build_server`, then contrib's if chosen. So a ServiceError that an interceptor raises is the status
    of the RPC, and in its span.
    """
    own_tracing = [] if contrib.is_chosen(telemetry) else [tracing(telemetry, own_traces=own_traces)]
    return [*own_tracing, admission(max_pending), errors, closing.concern, deadlines]


def _backlog(max_pending: int) -> tuple[tuple[str, int], ...]:
    """The two limits are the same: above the first and below the second gRPC's core refuses at random."""
    most = max_pending + MAX_UNACCEPTED
    return ("grpc.server.max_pending_requests", most), ("grpc.server.max_pending_requests_hard_limit", most)


def unknown_method_concerns(telemetry: Telemetry, *, own_traces: bool = False) -> list[Concern]:
    """What surrounds the response to a method that the server does not have; contrib traces none."""
    return [] if contrib.is_chosen(telemetry) else [unknown_method_tracing(telemetry, own_traces=own_traces)]
