"""Reads the services of the mesh from their own projects.

`[tool.aiomesh]` in `services/*/pyproject.toml` is the only place that lists a service:

    [tool.aiomesh]
    port = 50051            # where it listens
    protocol = "grpc"       # or "http"; the default is grpc
    database = true         # whether it owns a database; the default is false
    after = ["inventory"]   # the services that it calls; the default is none

`make up`, the locks, the images, the manifests and the tests get the services from this module.
"""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Protocol = Literal["grpc", "http"]

ROOT = Path(__file__).resolve().parents[4]
"""The repository; this package is always installed from it, in editable form."""

KEYS = {"port", "protocol", "database", "after"}
MAX_PORT = 2**16 - 1


class InvalidDeclaration(Exception):
    """A `[tool.aiomesh]` table is invalid; the text names the file and the mistake."""


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        name: its Python package and its folder in `services/`, such as `api_edge`.
        port: the port that it listens on.
        protocol: the protocol of that port.
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
        """The prefix of its variables: `EDGE_` for `api_edge`."""
        return f"{self.name.removeprefix('api_').upper()}_"

    @property
    def port_variable(self) -> str:
        """The variable that sets its port under `make up`: `EDGE_PORT` for `api_edge`."""
        return f"{self.prefix}PORT"

    @property
    def workload(self) -> str:
        """Its name with hyphens, for Kubernetes, images and Python distributions: `api-edge`."""
        return self.name.replace("_", "-")

    @property
    def grpc_name(self) -> str:
        """The full name of its gRPC service, such as `aiomesh.pricing.v1.PricingService`."""
        return f"aiomesh.{self.name}.v1.{self.name.title().replace('_', '')}Service"


def read_services(root: Path = ROOT) -> tuple[Service, ...]:
    """The declared services: each one after those that it calls, otherwise by name.

    Raises:
        InvalidDeclaration: a table is missing or invalid, two services have the same port, or calls form a cycle.
    """
    found = {path.parent.name: _read(path) for path in sorted(root.glob("services/*/pyproject.toml"))}
    for service in found.values():
        if unknown := set(service.after) - found.keys():
            raise InvalidDeclaration(f"services/{service.name}: `after` names an unknown service: {min(unknown)}")
    for one, other in itertools.combinations(found.values(), 2):
        if one.port == other.port:
            raise InvalidDeclaration(f"services/{one.name} and services/{other.name} both have port {one.port}")
    try:
        order = TopologicalSorter({name: service.after for name, service in found.items()}).static_order()
        return tuple(found[name] for name in order)
    except CycleError as error:
        raise InvalidDeclaration(f"services call each other in a cycle: {' → '.join(error.args[1])}") from error


def _read(path: Path) -> Service:
    table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("aiomesh", {})
    if fault := next(_faults(table), None):
        raise InvalidDeclaration(f"{path}: [tool.aiomesh] {fault}")
    return Service(
        name=path.parent.name,
        port=table["port"],
        protocol=table.get("protocol", "grpc"),
        database=table.get("database", False),
        after=tuple(table.get("after", ())),
    )


def _faults(table: Mapping[str, object]) -> Iterator[str]:
    yield from (f"does not support the key {key}" for key in sorted(table.keys() - KEYS))
    if not (type(port := table.get("port")) is int and 0 < port <= MAX_PORT):
        yield f"needs a port, 1 to {MAX_PORT}"
    if table.get("protocol", "grpc") not in {"grpc", "http"}:
        yield '`protocol` must be "grpc" or "http"'
    if not isinstance(table.get("database", False), bool):
        yield "`database` must be true or false"
    if not isinstance(table.get("after", []), list):
        yield "`after` must be a list of services"
