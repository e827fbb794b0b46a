"""The configuration of gRPC itself: load balancing, health checking, retries and connections.

https://grpc.io/docs/guides/service-config/, gRFC A6 (retries). Nothing else retries: only gRPC does, after UNAVAILABLE,
for methods that are safe to repeat, with throttling. A call that an overloaded server refused (RESOURCE_EXHAUSTED, see
`meshkit.server.admission`) is the caller's to repeat, after its RetryInfo: at once it would only add to the load.
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
    ("grpc.min_reconnect_backoff_ms", 2_000),  # the least timeout of a connection attempt; 20 s by default
    ("grpc.max_reconnect_backoff_ms", 1_000),  # with the default of 120 s a recovered backend stays unused for long
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),  # 30 s by default; a rollout is faster
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    (
        "grpc.use_local_subchannel_pool",
        1,
    ),  # otherwise a new channel inherits the failures of another one to the address
    ("grpc.enable_http_proxy", 0),  # a proxy for the internet is not for calls between services
)


def channel_options(
    service: str, repeatable: Sequence[str], own: Sequence[tuple[str, int | str]] = ()
) -> list[tuple[str, int | str]]:
    """The options of a channel to a service, whose `repeatable` methods may be retried; `own` ones replace others."""
    ours: dict[str, int | str] = {**dict(OPTIONS), "grpc.service_config": service_config(service, repeatable)}
    return [*{**ours, **dict(own)}.items()]


def service_config(service: str, repeatable: Sequence[str]) -> str:
    """The service config, as JSON: round_robin over the healthy addresses, retries for the repeatable methods.

    Each connection watches the health of the service (gRFC A17), so a replica that drains or has lost its database gets
    no calls, even while DNS lists it. A server without grpc.health.v1 counts as healthy.
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
