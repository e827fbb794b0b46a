"""Reads the services of the mesh from their own projects.

`[tool.aiomesh]` in `services/*/pyproject.toml` is the only place that lists a service:

    [tool.aiomesh]
    port = 50051            # where it listens
    protocol = "grpc"       # or "http"; the default is grpc
    database = true         # whether it owns a database; the default is false
    after = ["inventory"]   # the services that it calls; the default is none
    api = "storefront"      # the folder of its gRPC API in protos/aiomesh; the default is its name
    grpc_port = 50050       # where a service with protocol "http" also serves that API; the default is nowhere

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

KEYS = {"port", "protocol", "database", "after", "api", "grpc_port"}
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
        api: the folder of its gRPC API in `protos/aiomesh`; empty for its name.
        grpc_port: where a service with the protocol `http` also serves that API, or None.
    """

    name: str
    port: int
    protocol: Protocol
    database: bool
    after: tuple[str, ...]
    api: str = ""
    grpc_port: int | None = None

    @property
    def prefix(self) -> str:
        """The prefix of its variables: `EDGE_` for `api_edge`."""
        return f"{self.name.removeprefix('api_').upper()}_"

    @property
    def port_variable(self) -> str:
        """The variable that sets its port under `make up`: `EDGE_PORT` for `api_edge`."""
        return f"{self.prefix}PORT"

    @property
    def grpc_port_variable(self) -> str:
        """The variable that sets its `grpc_port` under `make up`: `EDGE_GRPC_PORT` for `api_edge`."""
        return f"{self.prefix}GRPC_PORT"

    @property
    def ports(self) -> dict[str, int]:
        """Its ports by the variable that sets each under `make up`."""
        return {self.port_variable: self.port} | ({self.grpc_port_variable: self.grpc_port} if self.grpc_port else {})

    @property
    def workload(self) -> str:
        """Its name with hyphens, for Kubernetes, images and Python distributions: `api-edge`."""
        return self.name.replace("_", "-")

    @property
    def grpc_name(self) -> str:
        """The full name of its gRPC service, such as `aiomesh.pricing.v1.PricingService`."""
        return f"aiomesh.{self.area}.v1.{self.area.title().replace('_', '')}Service"

    @property
    def area(self) -> str:
        """The folder of its gRPC API in `protos/aiomesh`."""
        return self.api or self.name

    @property
    def has_api(self) -> bool:
        """Whether it has a gRPC API."""
        return self.protocol == "grpc" or bool(self.api)


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
        if shared := {*one.ports.values()} & {*other.ports.values()}:
            raise InvalidDeclaration(f"services/{one.name} and services/{other.name} both have port {min(shared)}")
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
        api=table.get("api", ""),
        grpc_port=table.get("grpc_port"),
    )


def _faults(table: Mapping[str, object]) -> Iterator[str]:
    yield from (f"does not support the key {key}" for key in sorted(table.keys() - KEYS))
    if not _is_port(table.get("port")):
        yield f"needs a port, 1 to {MAX_PORT}"
    if "grpc_port" in table and not (_is_port(table["grpc_port"]) and table.get("protocol") == "http"):
        yield f'`grpc_port` must be a port, 1 to {MAX_PORT}, beside the protocol "http"'
    if not isinstance(table.get("api", ""), str):
        yield "`api` must be the name of a folder"
    if table.get("protocol", "grpc") not in {"grpc", "http"}:
        yield '`protocol` must be "grpc" or "http"'
    if not isinstance(table.get("database", False), bool):
        yield "`database` must be true or false"
    if not isinstance(table.get("after", []), list):
        yield "`after` must be a list of services"


def _is_port(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_PORT
