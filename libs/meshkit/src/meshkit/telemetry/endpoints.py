"""The endpoints of OTLP: checks them, and gives the exporters what they read otherwise than the specification.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/. An endpoint is a URL or a gRPC target.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import grpc

from meshkit import addresses, targets

MEANING = "an http:// or https:// URL, or a gRPC target with a port, such as http://127.0.0.1:4317"
PORTS = {"http": 80, "https": 443}
NO_LIMIT = 2_147_483.0
"""The seconds of a timeout of 0, which stands for no limit: the greatest 32-bit number of milliseconds."""


def is_endpoint(endpoint: str) -> bool:
    """Whether an exporter could ever reach the endpoint."""
    try:
        return endpoint.isprintable() and bool(targets.check(_target(endpoint)))
    except ValueError:
        return False


def exporter_options(signal: str) -> dict[str, Any]:
    """The arguments of the OTLP exporter of a signal, `TRACES` or `METRICS`, of the standard variables.

    The exporters know no compression `none` and no timeout of 0, and gRPC sends even what is for this machine to the
    proxy of the environment.
    """
    endpoint = _variable(signal, "ENDPOINT")
    scheme = urlsplit(endpoint).scheme
    target = _target(endpoint)
    timeout = float(_variable(signal, "TIMEOUT") or 10)
    gzip = _variable(signal, "COMPRESSION").lower() == "gzip"
    return {
        "endpoint": f"{scheme}://{target}" if scheme in PORTS else target,
        "compression": grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression,
        "timeout": timeout or NO_LIMIT,
        "channel_options": (("grpc.enable_http_proxy", 0),) if is_here(target) else None,
    }


def is_here(target: str) -> bool:
    """Whether a target is on this machine, as far as its text says. Asks no DNS server."""
    servers = targets.servers(target)
    return all(_is_here(server.host) for server in servers) if servers else target.lower().startswith("unix")


def _is_here(host: str) -> bool:
    if ip := addresses.ip_of(host):
        return ip.is_loopback or ip.is_unspecified
    name = host.lower().removesuffix(".")
    return name.rpartition(".")[2] == "localhost" or name == socket.gethostname().lower()


def _target(endpoint: str) -> str:
    """The gRPC target of an endpoint. A URL without a port has that of its scheme; its path is ignored."""
    url = urlsplit(endpoint)
    if url.scheme not in PORTS:
        return endpoint
    return url.netloc if re.search(r":[0-9]*$", url.netloc) else f"{url.netloc}:{PORTS[url.scheme]}"


def _variable(signal: str, name: str) -> str:
    general = os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}") or general
