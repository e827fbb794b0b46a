"""The allowed imports between modules, which keep the domain free of gRPC, SQL and HTTP.

An import under TYPE_CHECKING counts like any other, because a module that names a type depends on its module.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import pytest

from tests.repository import SERVICES, SOURCES, modules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KNOWS = {package: {"aiomesh", "meshkit"} if package in SERVICES else set() for package in SOURCES} | {
    "tracebox": {"meshkit"}  # which reads the settings of every process
}
"""The packages of this repository that each package may import, beside itself."""

PURE = {f"{service}.domain" for service in SERVICES} | {"pricing.price_book", "api_edge.rules"}
"""Modules of values and rules: they import the standard library, PURE_MESHKIT, and each other."""

PURE_MESHKIT = {"meshkit.errors", "meshkit.validation"}
"""The kinds of errors, and the checks of fields."""

SPEAKS_PROTOBUF = {"servicer", "convert", "clients", "rpc"}
"""The modules of a service that import generated code; `app` may import the function that registers a servicer."""

IMPORTERS = {
    "__main__": set(),
    "app": {"__main__"},
    "settings": {"__main__", "app"},
    "servicer": {"app"},
    "convert": {"servicer", "clients"},
    "rest": {"app", "rest"},
    "rpc": {"app", "rpc"},
    "storefront": {"app", "rest", "rpc"},
    "clients": {"app", "storefront", "purge"},
    "store": {"app", "servicer", "sweeper"},
}
"""The modules of its own service that may import each of these: `__main__ → app → ports → store, domain`."""

SPEAKS_HTTP = {"fastapi", "starlette", "uvicorn", "httptools"}
"""The libraries that only `rest` imports; another protocol has a separate module."""

VAGUE = {"utils", "util", "core", "common", "helpers", "misc"}


def imported_names(source: str) -> Iterator[str]:
    """The dotted names of all imports in a source text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def part(name: str) -> str:
    """The module of a service below its package: `rest` of `api_edge.rest.routes.orders.router`."""
    return name.split(".")[1] if "." in name else ""


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


OTLP = ("tracebox", "meshkit.telemetry.encoding")
"""What reads and writes the messages of OTLP."""


def refusals(module: str, source: str) -> list[str]:
    """The violations of the rules by the imports of a module."""
    return [f"{module}: {name}: {reason}" for name in imported_names(source) for reason in objections(module, name)]


def objections(module: str, name: str) -> Iterator[str]:
    package = top(module)
    if name.startswith("."):
        yield "imports are absolute"
    if top(name) in {*KNOWS, "aiomesh"} - {package} - KNOWS[package]:
        yield f"{package} does not know {top(name)}"
    if within(name, "opentelemetry.proto") and not any(within(module, each) for each in OTLP):
        yield "only tracebox and the encoder speak OTLP"
    if module in PURE and top(name) not in sys.stdlib_module_names and not within(name, *PURE_MESHKIT, *PURE):
        yield "a domain imports the standard library and meshkit.errors"
    if package in SERVICES:
        yield from objections_in_service(module, name)


def objections_in_service(module: str, name: str) -> Iterator[str]:
    if within(name, "aiomesh", "google") and not speaks_protobuf(module, name):
        yield "generated code stays in servicer, convert, clients and rpc"
    if top(name) in SPEAKS_HTTP and part(module) != "rest":
        yield "HTTP stays in rest"
    if within(name, "meshkit.fastapi") and part(module) not in {"rest", "app"}:
        yield "HTTP stays in rest"
    importers = IMPORTERS.get(part(name)) if within(name, top(module)) else None
    if importers is not None and part(module) not in importers:
        yield f"{part(name)} is for {', '.join(sorted(importers)) or 'nobody'}"


def speaks_protobuf(module: str, name: str) -> bool:
    registers = name.endswith(".DESCRIPTOR") or name.rpartition(".")[2].startswith("add_")
    return part(module) in SPEAKS_PROTOBUF or (part(module) == "app" and registers)


def cycle(sources: Mapping[str, str]) -> list[str]:
    """The modules of a circular import, or nothing. An imported name that is not a module counts as its module."""
    graph = {
        module: {owner(name, sources) for name in imported_names(source)} - {"", module}
        for module, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def owner(name: str, sources: Mapping[str, str]) -> str:
    while name and name not in sources:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("package", SOURCES)
def test_imports_keep_the_directions(package: str) -> None:
    found = [refusal for module, source in modules(package).items() for refusal in refusals(module, source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", SOURCES)
def test_there_are_no_circular_imports(package: str) -> None:
    assert not cycle(modules(package))


@pytest.mark.parametrize("package", SOURCES)
def test_no_module_has_a_meaningless_name(package: str) -> None:
    assert not [module for module in modules(package) if VAGUE & set(module.split("."))]


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("inventory.domain", "import sqlalchemy", "a domain imports the standard library and meshkit.errors"),
        ("inventory.domain", "from inventory.tables import stock", "a domain imports the standard library and meshkit"),
        ("inventory.domain", "from meshkit.status import write_status", "a domain imports the standard library and"),
        ("inventory.store", "from . import tables", "imports are absolute"),
        ("api_edge.rest.routes.products", "from ..clients import PRICING", "imports are absolute"),
        ("pricing.price_book", "from pricing.store import PriceStore", "store is for app, servicer, sweeper"),
        ("inventory.store", "from aiomesh.inventory.v1 import inventory_pb2", "generated code stays in servicer"),
        ("inventory.store", "from google.protobuf.timestamp_pb2 import Timestamp", "generated code stays in servicer"),
        ("inventory.app", "from aiomesh.inventory.v1.inventory_pb2 import Stock", "generated code stays in servicer"),
        ("api_edge.rest.routes.products", "import aiomesh.pricing.v1.pricing_pb2", "generated code stays in servicer"),
        ("api_edge.domain", "from api_edge import clients", "clients is for app, purge, storefront"),
        (
            "api_edge.rest.routes.products",
            "from api_edge.clients import PRICING",
            "clients is for app, purge, storefront",
        ),
        ("api_edge.rest.routes.orders", "from api_edge.rpc.servicer import StorefrontServicer", "rpc is for app, rpc"),
        ("api_edge.rpc.servicer", "from api_edge.rest.schemas import Order", "rest is for app, rest"),
        ("api_edge.storefront", "from starlette.requests import Request", "HTTP stays in rest"),
        ("api_edge.app", "from fastapi import FastAPI", "HTTP stays in rest"),
        ("api_edge.clients", "from meshkit.fastapi.middleware import TraceHeaders", "HTTP stays in rest"),
        ("api_edge.rules", "from api_edge.storefront import Storefront", "a domain imports the standard library"),
        ("api_edge.storefront", "from api_edge.rest.routes import orders", "rest is for app, rest"),
        ("inventory.sweeper", "from inventory.settings import Settings", "settings is for __main__, app"),
        ("inventory.store", "from inventory.servicer import InventoryServicer", "servicer is for app"),
        ("inventory.servicer", "from inventory.app import build", "app is for __main__"),
        ("inventory.app", "from inventory.__main__ import main", "__main__ is for nobody"),
        ("api_edge.storefront", "from pricing.domain import Money", "api_edge does not know pricing"),
        ("inventory.app", "import localmesh.ports", "inventory does not know localmesh"),
        (
            "meshkit.server.health",
            "def check():\n    from inventory.store import Store",
            "meshkit does not know inventory",
        ),
        ("meshkit.status", "import aiomesh.inventory.v1", "meshkit does not know aiomesh"),
        ("localmesh.mesh", "from api_edge.settings import Settings", "localmesh does not know api_edge"),
        ("localmesh.logs", "import meshkit.logs", "localmesh does not know meshkit"),
        (
            "meshkit.logs",
            "from opentelemetry.proto.trace.v1 import trace_pb2",
            "only tracebox and the encoder speak OTLP",
        ),
        (
            "localmesh.mesh",
            "from opentelemetry.proto.trace.v1 import trace_pb2",
            "only tracebox and the encoder speak OTLP",
        ),
        (
            "inventory.tables",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from inventory.store import Store",
            "store is for app, servicer, sweeper",
        ),
    ],
)
def test_a_forbidden_import_is_reported(module: str, source: str, reason: str) -> None:
    assert any(reason in refusal for refusal in refusals(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("inventory.domain", "from dataclasses import dataclass\nfrom meshkit.errors import NotFound"),
        ("pricing.price_book", "from pricing.domain import Money"),
        ("api_edge.rules", "from api_edge.domain import Line\nfrom meshkit.validation import is_uuid"),
        ("api_edge.rest.routes.orders", "from api_edge.rules import KEY\nfrom api_edge.storefront import Storefront"),
        ("api_edge.rpc.servicer", "from api_edge.storefront import Storefront"),
        ("inventory.convert", "from aiomesh.inventory.v1 import inventory_pb2"),
        ("inventory.app", "from aiomesh.inventory.v1.inventory_service_pb2 import DESCRIPTOR"),
        ("tracebox.store", "from opentelemetry.proto.trace.v1.trace_pb2 import Span"),
        ("meshkit.status", "from google.rpc import status_pb2"),
    ],
)
def test_an_allowed_import_is_accepted(module: str, source: str) -> None:
    assert not refusals(module, source)


def test_circular_imports_are_found_through_attributes_modules_and_packages() -> None:
    sources = {
        "shop": "",
        "shop.cart": "from shop.till import Till",
        "shop.till": "import shop.drawer.lock",
        "shop.drawer.lock": "from shop import cart",
    }
    assert set(cycle(sources)) == {"shop.cart", "shop.till", "shop.drawer.lock"}
    assert not cycle({**sources, "shop.till": "import json"})
