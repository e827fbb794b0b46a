"""Builds grpc.aio servers: options, what is around every handler, health and reflection.

Around a handler, from outside in: tracing sees how every RPC ends; errors turns what the handler raises into a status;
deadlines refuses what comes too late and opens the budget of the rest.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry import trace

from meshkit.deadline import FLOOR, budget
from meshkit.errors import DeadlineExceeded, Internal, ServiceError, in_words, mapping_of
from meshkit.server.handlers import HandlerInterceptor
from meshkit.server.tracing import tracing_interceptor
from meshkit.status import write_status
from meshkit.telemetry.semconv import SERVER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.server.handlers import Behavior, Stream
    from meshkit.server.health import Health
    from meshkit.telemetry.provider import Telemetry

log = logging.getLogger("meshkit.server")

MAX_SECONDS = 30.0
"""The budget of a call whose client set no deadline."""

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
    *, services: dict[str, Callable[[grpc.aio.Server], None]], health: Health, telemetry: Telemetry
) -> grpc.aio.Server:
    """A server with its services, grpc.health.v1 and reflection, not yet listening. The caller stops it.

    Args:
        services: for each full service name, what adds its servicer to the server.
        health: the health servicer.
        telemetry: whose spans the RPCs make.
    """
    server = grpc.aio.server(interceptors=_interceptors(telemetry), options=OPTIONS)
    for add in services.values():
        add(server)
    health.add_to(server)
    reflection.enable_server_reflection([*services, reflection.SERVICE_NAME, *health.service_names()], server)
    return server


def _interceptors(telemetry: Telemetry) -> list[grpc.aio.ServerInterceptor]:
    if telemetry.instrumentation == "native":
        return [tracing_interceptor(telemetry, _errors, _deadlines)]
    from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters  # noqa: PLC0415 - only where chosen

    make: Callable[..., grpc.aio.ServerInterceptor] = aio_server_interceptor
    contrib = make(tracer_provider=telemetry.tracer_provider, filter_=filters.negate(filters.health_check()))
    # Innermost, for it must see the handlers as they are: it breaks a coroutine that writes a stream.
    return [HandlerInterceptor(_errors, _deadlines), contrib]


def _errors(method: str, behavior: Behavior) -> Behavior:
    """Ends the RPC with the rich status of the ServiceError that its handler raised.

    What made the service fail, such as a database that is full, is told to the log alone.
    Any other exception is a bug: the caller gets INTERNAL with a fixed text, the log and the span get the traceback.
    So is a cancellation that is not the caller's; gRPC would leave the caller waiting.
    """

    async def translated(request: object, context: Stream) -> object:
        try:
            return await behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except ServiceError as error:
            status = write_status(error)
            if error.__cause__ and mapping_of(error).code in SERVER_ERRORS:
                log.warning("%s failed: %s", method.lstrip("/"), in_words(error))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and context.is_cancelled():
                raise
            log.exception("%s failed", method.lstrip("/"))
            trace.get_current_span().record_exception(error)
            status = write_status(Internal("internal error"))
        if not context.done():  # as it is after an `abort` that the handler turned into something else
            await context.abort_with_status(rpc_status.to_status(status))
        return None

    return translated


def _deadlines(method: str, behavior: Behavior) -> Behavior:
    """Refuses at once what cannot be answered in time, and opens the budget that outgoing calls share."""

    async def limited(request: object, context: Stream) -> object:
        left: float | None = context.time_remaining()
        if left is not None and left < FLOOR:
            raise DeadlineExceeded(f"{method.lstrip('/')} came with {max(left, 0) * 1000:.0f} ms left")
        with budget(left or MAX_SECONDS):
            if left is not None:  # the deadline cancels the handler by itself
                return await behavior(request, context)
            return await _at_most(MAX_SECONDS, behavior, request, context)

    return limited


async def _at_most(seconds: float, behavior: Behavior, request: object, context: Stream) -> object:
    try:
        async with asyncio.timeout(seconds) as timeout:
            return await behavior(request, context)
    except TimeoutError:
        if not timeout.expired():
            raise
        raise DeadlineExceeded(f"the server allows {seconds:.0f} s to a call without a deadline") from None
