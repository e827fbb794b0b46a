"""opentelemetry-instrumentation-grpc instead of meshkit's own tracing, for the setting `contrib`.

This needs an extra: `pip install 'meshkit[contrib]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from meshkit.telemetry.provider import Telemetry


def is_chosen(telemetry: Telemetry) -> bool:
    """Whether contrib's interceptors create the spans of RPCs."""
    return telemetry.instrumentation == "contrib"


def client_interceptors(telemetry: Telemetry) -> list[grpc.aio.ClientInterceptor]:
    """Contrib's interceptors of a channel, if chosen. They must come first, outside all others."""
    if not is_chosen(telemetry):
        return []
    require("contrib")
    from opentelemetry.instrumentation.grpc import aio_client_interceptors  # noqa: PLC0415 - only where chosen

    make: Callable[..., list[grpc.aio.ClientInterceptor]] = aio_client_interceptors
    return make(tracer_provider=telemetry.tracer_provider)


def server_interceptors(telemetry: Telemetry) -> list[grpc.aio.ServerInterceptor]:
    """Contrib's interceptors of a server, if chosen.

    They must come last, inside all others, to get the original handlers: contrib breaks coroutines that write a stream,
    and meshkit turns every streaming handler into such a coroutine.
    """
    if not is_chosen(telemetry):
        return []
    require("contrib")
    from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters  # noqa: PLC0415 - only where chosen

    make: Callable[..., grpc.aio.ServerInterceptor] = aio_server_interceptor
    return [make(tracer_provider=telemetry.tracer_provider, filter_=filters.negate(filters.health_check()))]
