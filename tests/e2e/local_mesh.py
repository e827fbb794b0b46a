"""A mesh that `make up` starts, with its own ports and state, used from outside as a user does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import psutil

from localmesh.services import read_services
from localmesh.settings import settings_for
from tests.ports import held_port
from tests.processes import left_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PORTS = [name.upper() for name in settings_for(read_services()).model_fields if name.endswith("_port")]
"""The variables of `make up` for its ports."""

Json = Any
EXIT_LIMIT = 10.0  # seconds that a killed process may take to exit


class Mesh(Protocol):
    """A running mesh, on this machine or on a cluster."""

    @property
    def edge(self) -> str:
        """The URL of the REST API."""

    @property
    def grpc(self) -> str:
        """The address of the same API over gRPC."""

    @property
    def traces(self) -> str:
        """The URL of the trace backend."""

    @property
    def database(self) -> str:
        """The name of the database system in spans: `db.system.name`."""

    def frozen(self, service: str) -> AbstractContextManager[None]:
        """Stops every process of a service by SIGSTOP until the end of the block."""


def free_ports() -> dict[str, int]:
    """A free loopback port for each variable of `make up`."""
    return {name: held_port() for name in PORTS}


@dataclass
class LocalMesh:
    """A running localmesh and its output so far."""

    state: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=free_ports)
    process: subprocess.Popen[str] = field(init=False)
    printed: list[str] = field(default_factory=list)

    @property
    def edge(self) -> str:
        return f"http://127.0.0.1:{self.ports['EDGE_PORT']}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports['EDGE_GRPC_PORT']}"

    @property
    def traces(self) -> str:
        return f"http://127.0.0.1:{self.ports['TRACES_PORT']}"

    @property
    def database(self) -> str:
        return "sqlite"

    @contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        process = psutil.Process(self.pid(service))
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def start(self) -> None:
        """Starts the mesh and waits until it prints the three commands."""
        variables = {name: str(port) for name, port in self.ports.items()}
        inherited = {name: value for name, value in os.environ.items() if name != "JAEGER_BIN"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "localmesh"],
            env={**inherited, "STATE_DIR": str(self.state), **variables, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.read_until("/trace/$(")

    def read_until(self, text: str) -> str:
        """Reads the output up to a line with `text`, and returns that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was never printed:\n{''.join(self.printed)}")

    def stop(self) -> int:
        """Sends SIGINT, reads the rest of the output, and returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Reads the rest of the output of a mesh that stops, and returns the exit status."""
        assert self.process.stdout is not None
        self.printed += self.process.stdout.readlines()
        return self.process.wait()

    def kill_everything(self) -> None:
        """Kills localmesh and all its children at once, by SIGKILL."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in family:
            process.kill()
        assert left_of(family, EXIT_LIMIT) == []
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait()

    def pid(self, name: str) -> int:
        """The process id of a service, which runs as `python -m NAME`."""
        return next(
            child.pid for child in psutil.Process(self.process.pid).children() if child.cmdline()[-2:] == ["-m", name]
        )

    @contextmanager
    def running(self) -> Iterator[LocalMesh]:
        """Starts the mesh, and stops it at the end of the block unless the test did."""
        self.start()
        try:
            yield self
        finally:
            if self.process.poll() is None:
                self.stop()
            if self.process.stdout:
                self.process.stdout.close()


@dataclass(frozen=True)
class Answer:
    """One complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: Json

    @property
    def trace_id(self) -> str:
        return self.headers["X-Trace-Id"]


async def call(mesh: Mesh, method: str, path: str, **options: Any) -> Answer:
    """Sends one request to the edge."""
    timeout = aiohttp.ClientTimeout(total=15)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, mesh.edge + path, **options) as response,
    ):
        return Answer(response.status, response.headers.copy(), json.loads(await response.read() or b"null"))


async def order(mesh: Mesh, key: str, lines: Mapping[str, int], currency: str = "EUR") -> Answer:
    """Sends one POST /v1/orders."""
    body = {"currency": currency, "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines.items()]}
    return await call(mesh, "POST", "/v1/orders", json=body, headers={"Idempotency-Key": key})


@dataclass(frozen=True)
class Span:
    """One span of the query API."""

    service: str
    name: str
    tags: Mapping[str, Json]
    resource: Mapping[str, Json]
    start: int
    end: int
    children: tuple[Span, ...]

    def tree(self) -> Json:
        """The span as (service, name, children), without database spans."""
        children = [child.tree() for child in self.children if "db.system.name" not in child.tags]
        return (self.service, self.name, sorted(children))


async def trace(mesh: Mesh, trace_id: str, spans: int, *, at_most: int | None = None) -> Span:
    """The root span of a trace; fails unless the query API has all `spans` HTTP and RPC spans within 2 s.

    A cancelled call may end before it reaches its server, so such a trace has from `spans` to `at_most` spans.
    """
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(2):
            while not _complete(found := await spans_of(session, mesh, trace_id), spans):
                await asyncio.sleep(0.05)
    assert len(_without_database(found)) <= (at_most or spans), [span["operationName"] for span in found]
    (root,) = _children(found, None)
    return root


async def spans_of(session: aiohttp.ClientSession, mesh: Mesh, trace_id: str) -> list[Json]:
    """The spans of a trace that the query API has, each with its `process`."""
    async with session.get(f"{mesh.traces}/api/traces/{trace_id}") as response:
        answer = json.loads(await response.read())
    return [span for found in answer["data"] or [] for span in spans_in(found)]


def spans_in(found: Json) -> list[Json]:
    """The spans of a trace as the query API returns it, each with its `process`."""
    return [{**span, "process": found["processes"][span["processID"]]} for span in found["spans"]]


def _complete(found: list[Json], spans: int) -> bool:
    return len(_without_database(found)) >= spans and any(parent_of(span) is None for span in found)


def _without_database(spans: list[Json]) -> list[Json]:
    return [span for span in spans if "db.system.name" not in tags_of(span)]


def _children(spans: list[Json], parent: str | None) -> tuple[Span, ...]:
    own = [span for span in spans if parent_of(span) == parent]
    return tuple(
        Span(
            service=span["process"]["serviceName"],
            name=span["operationName"],
            tags=tags_of(span),
            resource=tags_of(span["process"]),
            start=span["startTime"],
            end=span["startTime"] + span["duration"],
            children=_children(spans, span["spanID"]),
        )
        for span in sorted(own, key=lambda span: span["startTime"])
    )


def tags_of(part: Json) -> dict[str, Json]:
    """The attributes of a span, or of its process: those are the attributes of its resource."""
    return {tag["key"]: tag["value"] for tag in part["tags"]}


def parent_of(span: Json) -> str | None:
    """The id of the span's parent."""
    return next((reference["spanID"] for reference in span["references"] if reference["refType"] == "CHILD_OF"), None)


def pids_of_table(printed: list[str]) -> dict[str, int]:
    """The pid of each process in the table that localmesh prints, by its name."""
    rows = [re.match(r"\s+(\w+)\s+\S+:\d+\s+(\d+)\s", line) for line in printed]
    return {row[1]: int(row[2]) for row in rows if row}
