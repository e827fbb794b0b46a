"""What `make bench` compares: the mesh in several settings, an older commit of it, and the rivals.

Each variant is an edge and its two services, all of them started at once, so that bursts of load can alternate between
them.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.postgres import execute, postgres_databases
from localmesh.probe import any_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).parents[1]
BASES = REPOSITORY / ".bench"
"""The checkouts of older commits, each with its own environment."""

START_SECONDS = 180  # a busy machine starts dozens of processes slowly

ENOUGH = "UPDATE stock SET on_hand = 10000000"
"""So that no order is refused."""


@dataclass(frozen=True)
class Variant:
    """One column of the comparison.

    Attributes:
        name: as the table shows it.
        variables: of the mesh's three processes.
        repository: the checkout whose code and environment run.
        rival: the file of a rival's edge; empty for the mesh.
        services: the file of the rival's services; empty if it has none.
        edges: the number of edges of the mesh, which share the load.
        has_postgres: whether the mesh's databases are PostgreSQL's.
    """

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    repository: Path = REPOSITORY
    rival: str = ""
    services: str = ""
    edges: int = 1
    has_postgres: bool = False


MESH = (
    Variant("traced"),
    Variant("unsampled", {"OTEL_TRACES_SAMPLER": "always_off"}),
    Variant("untraced", {"OTEL_SDK_DISABLED": "true"}),
    Variant("contrib", {f"{service}_TELEMETRY": "contrib" for service in ("EDGE", "INVENTORY", "PRICING")}),
)
MORE_MESH = (Variant("traced, two edges", edges=2), Variant("traced, PostgreSQL", has_postgres=True))
RIVALS = (
    Variant("sync gRPC in threads", rival="sync_grpc", services="sync_grpc"),
    Variant("FastAPI to httpx", rival="over_httpx", services="http_backends"),
    Variant("FastAPI to aiohttp", rival="over_aiohttp", services="http_backends"),
    Variant("plain grpc.aio", rival="plain_grpc_aio", services="plain_grpc_aio"),
    Variant("FastAPI constant", rival="constant"),
)


@dataclass(frozen=True)
class Running:
    """A variant that runs: the URLs of its edges, and its processes by role: edge, inventory, pricing."""

    variant: Variant
    urls: Sequence[str]
    processes: Mapping[str, Sequence[psutil.Process]]

    def cpu_seconds(self) -> dict[str, float]:
        """The CPU time that each role has used so far, all threads, also those that have ended."""
        return {role: sum(map(cpu_seconds, processes)) for role, processes in self.processes.items()}

    def memory(self) -> int:
        """The resident bytes of the processes together."""
        return sum(process.memory_info().rss for role in self.processes.values() for process in role)


def cpu_seconds(process: psutil.Process) -> float:
    """The CPU time that a process has used so far, threads that have ended included."""
    return time.clock_gettime((~process.pid << 3) | 2)  # the process's own clock: MAKE_PROCESS_CPUCLOCK of Linux


def base(reference: str) -> Variant:
    """A commit of this repository, checked out and installed below BASES if it is not there yet."""
    commit = output("git", "rev-parse", "--verify", f"{reference}^{{commit}}")
    checkout = BASES / commit
    if not checkout.exists():
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", checkout, commit], cwd=REPOSITORY, check=True)
    subprocess.run(["make", "install"], cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return Variant(f"base {commit[:7]}", repository=checkout)


def output(*command: str) -> str:
    """What a program prints in the repository."""
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def running(variants: Sequence[Variant], directory: Path) -> Iterator[list[Running]]:
    """Starts all variants, and a collector for their traces; ends them by SIGTERM."""
    with ExitStack() as stack:
        collector = stack.enter_context(_process([sys.executable, "-m", "bench.collector"], {}, directory))
        shared = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}
        databases = stack.enter_context(postgres_databases()) if any(each.has_postgres for each in variants) else {}
        started = [
            stack.enter_context(_mesh(each, directory, {**shared, **(databases if each.has_postgres else {})}))
            for each in variants
            if not each.rival
        ]
        seeded = directory / variants[0].name
        started += [stack.enter_context(_rival(each, seeded)) for each in variants if each.rival]
        yield started


@dataclass(frozen=True)
class _Process:
    process: psutil.Process
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def _mesh(variant: Variant, directory: Path, shared: Mapping[str, str]) -> Iterator[Running]:
    folder = directory / variant.name
    folder.mkdir()
    python = str(variant.repository / ".venv/bin/python")
    with ExitStack() as stack:

        def start(name: str, variables: Mapping[str, str]) -> _Process:
            own = {**shared, **variables, **variant.variables}
            return stack.enter_context(_process([python, "-m", name], own, folder, listen=True))

        inventory = start("inventory", {})
        pricing = start("pricing", {})
        targets = {"EDGE_INVENTORY_TARGET": inventory.address, "EDGE_PRICING_TARGET": pricing.address}
        edges = [start("api_edge", {**targets, "EDGE_DRAIN_SECONDS": "0"}) for _ in range(variant.edges)]
        ready = _ready(variant, edges, inventory=inventory, pricing=pricing)
        _fill_stock(shared.get("INVENTORY_DATABASE_URL", ""), folder / "inventory.db")
        yield ready


def _fill_stock(url: str, file: Path) -> None:
    if url:
        execute(url, ENOUGH)
        return
    with sqlite3.connect(file) as database:
        database.execute(ENOUGH)


@contextmanager
def _rival(variant: Variant, databases: Path) -> Iterator[Running]:
    with ExitStack() as stack:

        def start(name: str, role: str, *arguments: str) -> _Process:
            command = [sys.executable, "-m", f"bench.rivals.{name}", role]
            return stack.enter_context(_process(command, {}, databases, arguments))

        services = {}
        if variant.services:
            services = {
                "inventory": start(variant.services, "stock", "inventory.db"),
                "pricing": start(variant.services, "price", "pricing.db"),
            }
        edge = start(variant.rival, "edge", *(service.address for service in services.values()))
        yield _ready(variant, [edge], **services)


def _ready(variant: Variant, edges: Sequence[_Process], **services: _Process) -> Running:
    """Waits until the edges respond with a price."""
    scheme = "https" if "EDGE_TLS_CERT" in variant.variables else "http"
    urls = [f"{scheme}://{edge.address}" for edge in edges]
    for url in urls:
        wait_for_price(url)
    backends = {role: [each.process] for role, each in services.items()}
    return Running(variant, urls, {"edge": [edge.process for edge in edges], **backends})


def wait_for_price(url: str) -> None:
    """Waits until an edge responds with a price. Raises TimeoutError after START_SECONDS."""
    context, deadline = any_certificate(), time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/v1/products/TEA-0001", timeout=5, context=context) as response:  # noqa: S310
                if b"unit_price" in response.read():
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"{url} has no price after {START_SECONDS} s")


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port: int = holder.getsockname()[1]
    return port


@contextmanager
def _process(
    command: list[str],
    variables: Mapping[str, str],
    folder: Path,
    arguments: Sequence[str] = (),
    *,
    listen: bool = False,
) -> Iterator[_Process]:
    """A process on a free port, which is in its variables if it is to `listen`, else its next argument."""
    port = free_port()
    if listen:
        prefix = {"api_edge": "EDGE"}.get(command[-1], command[-1].upper())
        variables = {f"{prefix}_LISTEN": f"127.0.0.1:{port}", **variables}
    else:
        command = [*command, str(port), *arguments]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "EDGE_", "INVENTORY_", "PRICING_"))
    }
    with (folder / f"{command[2]}-{port}.log").open("w") as log:
        process = subprocess.Popen(
            command, env={**inherited, "PYTHONPATH": str(REPOSITORY), **variables}, cwd=folder, stdout=log, stderr=log
        )
    try:
        yield _Process(psutil.Process(process.pid), port)
    finally:
        process.terminate()
        process.wait()
