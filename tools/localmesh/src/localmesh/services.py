"""The services of the mesh, as their own projects declare them.

`[tool.aiomesh]` in `services/*/pyproject.toml` is the only place that lists a service:

    [tool.aiomesh]
    port = 50051            # where it listens
    protocol = "grpc"       # or "http"; the default is grpc
    database = true         # it owns one; the default is false
    after = ["inventory"]   # the services that it calls; the default is none

`make up`, the locks, the images, the manifests and the tests read it here.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal, cast

Protocol = Literal["grpc", "http"]

ROOT = Path(__file__).resolve().parents[4]
"""The repository; this package is only ever installed from it, editable."""

KEYS = {"port", "protocol", "database", "after"}
MAX_PORT = 2**16 - 1


class InvalidDeclarationError(Exception):
    """A `[tool.aiomesh]` table is invalid; the text names the file and what is wrong with it."""


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        name: its Python package and its folder in `services/`, such as `api_edge`.
        port: where it listens.
        protocol: what it speaks there.
        database: whether it owns a database.
        after: the names of the services that it calls.
    """

    name: str
    port: int
    protocol: Protocol
    database: bool
    after: tuple[str, ...]

    @property
    def prefix(self) -> str:
        """What its variables begin with: `EDGE_` for `api_edge`."""
        return f"{self.name.removeprefix('api_').upper()}_"

    @property
    def workload(self) -> str:
        """Its name where an underscore cannot stand: in Kubernetes, in images and as a distribution."""
        return self.name.replace("_", "-")

    @property
    def grpc_name(self) -> str:
        """The full name of its gRPC service, such as `aiomesh.pricing.v1.PricingService`."""
        return f"aiomesh.{self.name}.v1.{self.name.title().replace('_', '')}Service"


def read_services(root: Path = ROOT) -> tuple[Service, ...]:
    """The declared services, those that are called before those that call them, else by name.

    Raises:
        InvalidDeclarationError: a table is missing or wrong, or services wait for each other.
    """
    found = {path.parent.name: _read(path) for path in sorted(root.glob("services/*/pyproject.toml"))}
    for service in found.values():
        if unknown := set(service.after) - found.keys():
            raise InvalidDeclarationError(f"services/{service.name}: `after` names no service: {min(unknown)}")
    try:
        order = TopologicalSorter({name: service.after for name, service in found.items()}).static_order()
        return tuple(found[name] for name in order)
    except CycleError as error:
        raise InvalidDeclarationError(f"services wait for each other: {' → '.join(error.args[1])}") from error


def _read(path: Path) -> Service:
    table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("aiomesh", {})
    port, protocol = table.get("port"), table.get("protocol", "grpc")
    if unknown := table.keys() - KEYS:
        raise InvalidDeclarationError(f"{path}: [tool.aiomesh] has no key {min(unknown)}")
    if not (isinstance(port, int) and 0 < port <= MAX_PORT):
        raise InvalidDeclarationError(f"{path}: [tool.aiomesh] needs a port, 1 to {MAX_PORT}")
    if protocol not in {"grpc", "http"}:
        raise InvalidDeclarationError(f'{path}: the protocol in [tool.aiomesh] is "grpc" or "http"')
    return Service(
        name=path.parent.name,
        port=port,
        protocol=cast("Protocol", protocol),
        database=table.get("database", False),
        after=tuple(table.get("after", ())),
    )
