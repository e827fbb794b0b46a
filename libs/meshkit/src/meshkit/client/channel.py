"""Opens client channels: balancing, retries, reconnecting, renewal, keepalive, and what every call has around it.

https://grpc.io/docs/guides/service-config/, gRFC A6 (retries). Retries live here alone: for UNAVAILABLE, for the
methods that the caller names as safe to repeat, with throttling.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from meshkit.client.request_stream import request_interceptors
from meshkit.client.renewal import RenewedChannel
from meshkit.client.tracing import tracing
from meshkit.deadline import call_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshkit.client.renewal import Begin
    from meshkit.telemetry.provider import Telemetry

RETRY_POLICY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # the least time that an attempt to connect is given; 20 s by default
    ("grpc.max_reconnect_backoff_ms", 1_000),  # the default of 120 s leaves a backend unused long after its return
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),  # 30 s by default; a rollout is sooner done
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),  # or a new channel inherits the failures of another one to the same address
    ("grpc.enable_http_proxy", 0),  # a proxy meant for the internet has no place between services
)


def open_channel(
    target: str, *, service: str, repeatable: Sequence[str], limit: float, telemetry: Telemetry
) -> grpc.aio.Channel:
    """A channel to one service. The caller closes it; calls fail fast while the service cannot be reached.

    Args:
        target: a gRPC name such as `dns:///pricing.aiomesh.svc.cluster.local:50052` or `127.0.0.1:50052`.
        service: the full name of the service, such as `aiomesh.pricing.v1.PricingService`.
        repeatable: the methods that may be retried: reads, and mutations that carry a request id.
        limit: seconds that any one call may take, however much budget remains.
        telemetry: whose spans the calls make.
    """
    options = [*OPTIONS, ("grpc.service_config", service_config(service, repeatable))]
    native = telemetry.instrumentation == "native"
    interceptors = request_interceptors() if native else [*_contrib(telemetry), *request_interceptors()]
    make = partial(grpc.aio.insecure_channel, target, options=options, interceptors=interceptors)
    decorates = [tracing(telemetry, target), limited(limit)] if native else [limited(limit)]
    return RenewedChannel(make, *decorates, grace=limit)


def service_config(service: str, repeatable: Sequence[str]) -> str:
    """The service config, as JSON: round_robin over the addresses that serve, retries for the repeatable methods.

    Each connection watches the health of the service (gRFC A17), so one that drains or has lost its database gets no
    calls, whatever DNS says. A server without grpc.health.v1 counts as healthy.
    """
    names = [{"service": service, "method": method} for method in repeatable]
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "healthCheckConfig": {"serviceName": service},
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
            "methodConfig": [{"name": names, "retryPolicy": RETRY_POLICY}] if names else [],
        }
    )


def limited(limit: float) -> Callable[[str, Begin], Begin]:
    """Gives each call a deadline: the shortest of its own timeout, the channel's limit and the budget."""

    def decorate(_path: str, begin: Begin) -> Begin:
        def within(*request: object, timeout: float | None = None, **options: Any) -> Any:
            own = limit if timeout is None else min(timeout, limit)
            return begin(*request, timeout=call_timeout(own), **options)

        return within

    return decorate


def _contrib(telemetry: Telemetry) -> list[grpc.aio.ClientInterceptor]:
    from opentelemetry.instrumentation.grpc import aio_client_interceptors  # noqa: PLC0415 - only where chosen

    make: Callable[..., list[grpc.aio.ClientInterceptor]] = aio_client_interceptors
    return make(tracer_provider=telemetry.tracer_provider)
