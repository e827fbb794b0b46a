"""What gRPC itself does for every call: balancing, health watching, retries, and how it keeps its connections.

https://grpc.io/docs/guides/service-config/, gRFC A6 (retries). Retries live here only: for UNAVAILABLE, for the
methods that are safe to repeat, with throttling.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def channel_options(
    service: str, repeatable: Sequence[str], own: Sequence[tuple[str, int | str]] = ()
) -> list[tuple[str, int | str]]:
    """The options of a channel to a service, whose `repeatable` methods may be retried; `own` ones replace others."""
    ours: dict[str, int | str] = {**dict(OPTIONS), "grpc.service_config": service_config(service, repeatable)}
    return [*{**ours, **dict(own)}.items()]


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
