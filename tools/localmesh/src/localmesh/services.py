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
"""The repository; this package is only ever installed from it, editable."""

KEYS = {"port", "protocol", "database", "after"}
MAX_PORT = 2**16 - 1


class InvalidDeclaration(Exception):
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
    def port_variable(self) -> str:
        """The variable that moves its port under `make up`: `EDGE_PORT` for `api_edge`."""
        return f"{self.prefix}PORT"

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
        InvalidDeclaration: a table is missing or wrong, or two services have one port, or they wait for each other.
    """
    found = {path.parent.name: _read(path) for path in sorted(root.glob("services/*/pyproject.toml"))}
    for service in found.values():
        if unknown := set(service.after) - found.keys():
            raise InvalidDeclaration(f"services/{service.name}: `after` names no service: {min(unknown)}")
    for one, other in itertools.combinations(found.values(), 2):
        if one.port == other.port:
            raise InvalidDeclaration(f"services/{one.name} and services/{other.name} both have port {one.port}")
    try:
        order = TopologicalSorter({name: service.after for name, service in found.items()}).static_order()
        return tuple(found[name] for name in order)
    except CycleError as error:
        raise InvalidDeclaration(f"services wait for each other: {' → '.join(error.args[1])}") from error


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
    yield from (f"has no key {key}" for key in sorted(table.keys() - KEYS))
    if not (type(port := table.get("port")) is int and 0 < port <= MAX_PORT):
        yield f"needs a port, 1 to {MAX_PORT}"
    if table.get("protocol", "grpc") not in {"grpc", "http"}:
        yield '`protocol` is "grpc" or "http"'
    if not isinstance(table.get("database", False), bool):
        yield "`database` is true or false"
    if not isinstance(table.get("after", []), list):
        yield "`after` is a list of services"
