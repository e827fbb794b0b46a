"""Envoy: one document of `addresses.yaml`, with anchors for addresses and files, and `envoy.yaml`, which names them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from localmesh.gateways.envoy_admin import MAX_PATH, SOCKET, drain
from localmesh.gateways.gateway import CONFIGURATIONS, Gateway

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from localmesh.gateways.gateway import Addresses

NAME = "envoy"
DESCRIPTORS = CONFIGURATIONS / NAME / "storefront.binpb"
"""The API for the transcoder, compiled by `make generate`."""


def _files(folder: Path, addresses: Addresses) -> dict[str, str]:
    own = f"""\
{_admin(folder / SOCKET)}node:
  id: gateway
  cluster: gateway
  metadata:
    listen: &listen {_socket(addresses.listen)}
    certificate: &certificate {json.dumps({"filename": str(addresses.cert)})}
    key: &key {json.dumps({"filename": str(addresses.key)})}
    edge_grpc: &edge_grpc {_endpoints(addresses.grpc)}
    edge_rest: &edge_rest {_endpoints(addresses.rest)}
    traces: &traces {_endpoints([addresses.traces])}
    descriptors: &descriptors {json.dumps(str(DESCRIPTORS))}
"""
    return {"addresses.yaml": own, "gateway.yaml": own + (CONFIGURATIONS / NAME / "envoy.yaml").read_text("utf-8")}


def _admin(socket: Path) -> str:
    """The administration interface, for this user only; none if the path is too long for a socket."""
    if len(str(socket).encode()) > MAX_PATH:
        return ""
    return f'admin: {{"address": {{"pipe": {{"path": {json.dumps(str(socket))}, "mode": {0o600}}}}}}}\n'


def _socket(address: str) -> str:
    """An address in JSON, which is YAML."""
    host, _, port = address.rpartition(":")
    return json.dumps({"address": host, "port_value": int(port)})


def _endpoints(addresses: Iterable[str]) -> str:
    sockets = (f'{{"endpoint": {{"address": {{"socket_address": {_socket(address)}}}}}}}' for address in addresses)
    return f"[{', '.join(sockets)}]"


def _arguments(folder: Path, _: Addresses) -> tuple[str, ...]:
    soon = ("--file-flush-interval-msec", "100", "--drain-strategy", "immediate")
    return ("-c", str(folder / "gateway.yaml"), "--disable-hot-restart", "--log-level", "warning", *soon)


ENVOY = Gateway(NAME, "envoy/_bin/envoy", _files, _arguments, drain=drain)
