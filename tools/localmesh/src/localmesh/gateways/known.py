"""The gateways by their names."""

from __future__ import annotations

from localmesh.gateways.envoy import ENVOY
from localmesh.gateways.nginx import NGINX
from localmesh.gateways.traefik import TRAEFIK

GATEWAYS = {gateway.name: gateway for gateway in (NGINX, TRAEFIK, ENVOY)}
"""Each one has a folder of its name in `deploy/gateways`."""
