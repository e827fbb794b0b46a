"""Traefik: the file provider reads `routes.yml` and, beside it, `addresses.yml`; the rest is environment variables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dotenv import dotenv_values

from localmesh.gateways.gateway import CONFIGURATIONS, Gateway

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from localmesh.gateways.gateway import Addresses

NAME = "traefik"
HEALTH_CHECK = {"interval": "500ms", "timeout": "1s"}


def _files(_: Path, addresses: Addresses) -> dict[str, str]:
    """JSON, which is YAML."""
    certificate = {"certFile": str(addresses.cert), "keyFile": str(addresses.key)}
    services = {
        "edge-rest": _service("http", addresses.rest, {"path": "/readyz"}),
        "edge-grpc": _service("h2c", addresses.grpc, {"mode": "grpc"}),
    }
    tls = {"stores": {"default": {"defaultCertificate": certificate}}}
    return {"addresses.yml": json.dumps({"http": {"services": services}, "tls": tls}, indent=2) + "\n"}


def _service(scheme: str, edges: Iterable[str], probe: Mapping[str, str]) -> dict[str, object]:
    """A service that leaves out an edge that drains, before that closes its port."""
    servers = [{"url": f"{scheme}://{edge}"} for edge in edges]
    return {"loadBalancer": {"servers": servers, "healthCheck": dict(probe) | HEALTH_CHECK}}


def _environment(folder: Path, addresses: Addresses) -> dict[str, str]:
    static = dotenv_values(CONFIGURATIONS / NAME / "static.env", interpolate=False)
    return {name: value for name, value in static.items() if value} | {
        "GATEWAY_HOSTS": ",".join(addresses.hosts),
        "TRAEFIK_ENTRYPOINTS_WEB_ADDRESS": addresses.listen,
        "TRAEFIK_PROVIDERS_FILE_DIRECTORY": str(folder),
    }


TRAEFIK = Gateway(NAME, "bin/traefik", _files, environment=_environment)
