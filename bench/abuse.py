"""What does abuse leave behind? Memory of each process of `make up`, warmed up and after minutes of mixed abuse.

    .venv/bin/python bench/abuse.py --seconds 300

Every kind of abuse runs again and again beside the others, while one ordinary caller reads a product, again and again.
One row has a process's memory (RSS, MB): warmed up, at its highest, and 10 s after the end. Exit status 1 means that
a service keeps more than 1.3 times its warmed-up memory, or that an ordinary read failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import psutil

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PORTS = ("EDGE_PORT", "EDGE_GRPC_PORT", "TRACES_PORT", "OTLP_PORT", "INVENTORY_PORT", "PRICING_PORT")
SERVICES = ("api_edge", "inventory", "pricing", "tracebox")
KEPT_LIMIT = 1.3
MB = 1024 * 1024
WARM_UP_SECONDS, REST_SECONDS = 20, 10
HEAD = b"Host: edge\r\nContent-Type: application/json\r\n"
SKU = "TEA-0006"


@dataclass
class Mesh:
    """A running mesh: its ports and its processes, by name."""

    ports: dict[str, int]
    processes: dict[str, psutil.Process]
    peak: Counter[str] = field(default_factory=Counter)

    def url(self, port: str, path: str) -> str:
        """The URL of a path on one of the ports."""
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def memory(self) -> dict[str, int]:
        """The resident bytes of each process."""
        return {name: process.memory_info().rss for name, process in self.processes.items()}


@contextmanager
def running_mesh() -> Iterator[Mesh]:
    """A mesh of `make up` on free ports and with a new state; its output is dropped."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = {name: holder.getsockname()[1] for name, holder in zip(PORTS, holders, strict=True)}
    for holder in holders:
        holder.close()
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "output")
        environment = {
            **os.environ,
            "STATE_DIR": f"{directory}/state",
            **{name: str(port) for name, port in ports.items()},
        }
        with output.open("w") as file:
            localmesh = subprocess.Popen([sys.executable, "-m", "localmesh"], env=environment, stdout=file)
        while "/trace/$(" not in output.read_text():
            if localmesh.poll() is not None:
                sys.exit(output.read_text())
            time.sleep(0.1)
        children = psutil.Process(localmesh.pid).children()
        yield Mesh(ports, {child.cmdline()[-1]: child for child in children if child.cmdline()[-1] in SERVICES})
        localmesh.send_signal(signal.SIGINT)
        localmesh.wait()


async def send(port: int, *parts: bytes, rest: float = 0.0, times: int = 1) -> bytes:
    """Sends bytes to a port, `rest` seconds after each part, and returns what is answered within 2 s."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with suppress(OSError, TimeoutError):
        for part in parts * times:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(rest)
        async with asyncio.timeout(2):
            answer = await reader.read(MB)
    writer.transport.abort()
    return answer


def order(body: bytes, *more: bytes) -> bytes:
    """A request for an order, with more lines of its head."""
    head = b"POST /v1/orders HTTP/1.1\r\n" + HEAD + b"".join(line + b"\r\n" for line in more)
    key = b"Idempotency-Key: %032x\r\n" % random.getrandbits(128)
    return head + key + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def endless_head(mesh: Mesh) -> None:
    """Eight MB of fields."""
    await send(mesh.ports["EDGE_PORT"], b"GET / HTTP/1.1\r\nHost: edge\r\n", *[b"a:b\r\n" * 13_000] * 128)


async def endless_target(mesh: Mesh) -> None:
    """Eight MB of one target."""
    await send(mesh.ports["EDGE_PORT"], b"GET /", *[b"a" * 64_000] * 128)


async def pipeline(mesh: Mesh) -> None:
    """Two MB of reads, of which the answers are hardly read."""
    await send(
        mesh.ports["EDGE_PORT"], b"GET /v1/products/%b HTTP/1.1\r\nHost: edge\r\n\r\n" % SKU.encode(), times=35_000
    )


async def unknown_keys(mesh: Mesh) -> None:
    """A MB of keys that no order has."""
    body = json.dumps({f"key {number}": number for number in range(60_000)}).encode()
    await send(mesh.ports["EDGE_PORT"], order(body))


async def bad_lines(mesh: Mesh) -> None:
    """An order of many wrong lines, just within the limit of its size."""
    body = json.dumps({"lines": [{"sku": "?", "quantity": -1, "x": []}] * 3000}).encode()
    await send(mesh.ports["EDGE_PORT"], order(body))


async def deep_json(mesh: Mesh) -> None:
    """A body of brackets."""
    await send(mesh.ports["EDGE_PORT"], order(b"[" * 100_000))


async def unread_answers(mesh: Mesh) -> None:
    """Pages that are asked for and never read."""
    _, writer = await asyncio.open_connection("127.0.0.1", mesh.ports["EDGE_PORT"])
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            for _ in range(300):
                writer.write(b"GET /v1/products?page_size=100 HTTP/1.1\r\nHost: edge\r\n\r\n")
                await writer.drain()
            await asyncio.sleep(2)
    writer.transport.abort()


async def silent(mesh: Mesh) -> None:
    """Connections that send nothing, or half a head."""
    for port in ("EDGE_PORT", "TRACES_PORT"):
        await asyncio.gather(*(send(mesh.ports[port], random.choice((b"", b"GET / HT"))) for _ in range(50)))


async def leaving(mesh: Mesh) -> None:
    """Callers that leave before their answer."""
    for _ in range(50):
        _, writer = await asyncio.open_connection("127.0.0.1", mesh.ports["EDGE_PORT"])
        writer.write(b"GET /v1/products?page_size=100 HTTP/1.1\r\nHost: edge\r\n\r\n")
        await asyncio.sleep(random.random() / 50)
        writer.transport.abort()


async def rubbish(mesh: Mesh) -> None:
    """Random bytes for every port, and half a preface of HTTP/2."""
    for name in PORTS:
        await send(mesh.ports[name], random.randbytes(5000))
        await send(mesh.ports[name], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", random.randbytes(20_000))


async def refused_orders(mesh: Mesh) -> None:
    """Orders of an unknown SKU, or of more than there is."""
    lines = [[{"sku": "NO-SUCH", "quantity": 1}], [{"sku": SKU, "quantity": 1_000_000}]]
    for number in range(40):
        await send(
            mesh.ports["EDGE_PORT"], order(json.dumps({"lines": lines[number % 2]}).encode(), b"Connection: close")
        )


async def same_trace(mesh: Mesh) -> None:
    """Traces of the same id, asked for 60 times in one query, and wrong parameters."""
    async with aiohttp.ClientSession() as session:
        async with session.get(mesh.url("EDGE_PORT", f"/v1/products/{SKU}")) as response:
            trace_id = response.headers["X-Trace-Id"]
        query = "&".join([f"traceID={trace_id}"] * 60)
        for path in (f"/api/traces?{query}", "/summaries?limit=-1", "/api/traces?service=api-edge&limit=1500"):
            async with session.get(mesh.url("TRACES_PORT", path)) as response:
                await response.read()


async def own_traces(mesh: Mesh) -> None:
    """Reads whose callers choose ids, states and baggage of the largest size."""
    state = ",".join(f"k{number}={'v' * 100}" for number in range(30))
    for _ in range(50):
        context = f"traceparent: 00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01\r\n"
        lines = f"{context}tracestate: {state}\r\nbaggage: a={'b' * 4000}\r\nConnection: close\r\n\r\n".encode()
        await send(mesh.ports["EDGE_PORT"], b"GET /v1/products HTTP/1.1\r\n" + HEAD + lines)


ABUSES: tuple[Callable[[Mesh], Awaitable[None]], ...] = (
    endless_head,
    endless_target,
    pipeline,
    unknown_keys,
    bad_lines,
    deep_json,
    unread_answers,
    silent,
    leaving,
    rubbish,
    refused_orders,
    same_trace,
    own_traces,
)


async def abuse(kind: Callable[[Mesh], Awaitable[None]], mesh: Mesh, end: float, counts: Counter[str]) -> None:
    """Runs one kind until the end; a refused or broken connection is what it is for."""
    while time.monotonic() < end:
        with suppress(OSError, aiohttp.ClientError, asyncio.IncompleteReadError):
            await kind(mesh)
        counts[kind.__name__] += 1
        await asyncio.sleep(0.2)


async def read_ordinarily(mesh: Mesh, end: float) -> list[str]:
    """Reads a product, again and again; returns what went wrong."""
    wrong = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        while time.monotonic() < end:
            try:
                async with session.get(mesh.url("EDGE_PORT", f"/v1/products/{SKU}")) as response:
                    if response.status not in (200, 504):  # 504: the machine, not the mesh, is at its limit
                        wrong.append(f"status {response.status}")
            except (OSError, aiohttp.ClientError, TimeoutError) as error:
                wrong.append(repr(error))
            mesh.peak |= Counter(mesh.memory())
            await asyncio.sleep(0.05)
    return wrong


async def warm_up(mesh: Mesh) -> None:
    """Ordinary callers: reads of a product and of pages, and orders."""
    end = time.monotonic() + WARM_UP_SECONDS

    async def caller(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            for path in (f"/v1/products/{SKU}", "/v1/products?page_size=100"):
                async with session.get(mesh.url("EDGE_PORT", path)) as response:
                    await response.read()
            await send(
                mesh.ports["EDGE_PORT"], order(b'{"lines": [{"sku": "TEA-0006", "quantity": 1}]}', b"Connection: close")
            )

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(caller(session) for _ in range(8)))


async def measure(mesh: Mesh, seconds: float) -> int:
    """Prints the table; returns the exit status."""
    await warm_up(mesh)
    warm, counts, end = mesh.memory(), Counter[str](), time.monotonic() + seconds
    wrong, *_ = await asyncio.gather(read_ordinarily(mesh, end), *(abuse(kind, mesh, end, counts) for kind in ABUSES))
    await asyncio.sleep(REST_SECONDS)
    after = mesh.memory()
    sys.stdout.write(f"{'memory, MB':12}{'warm':>8}{'peak':>8}{'after':>8}{'ratio':>8}\n")
    for name in warm:
        ratio = after[name] / warm[name]
        sys.stdout.write(
            f"{name:12}{warm[name] / MB:8.0f}{mesh.peak[name] / MB:8.0f}{after[name] / MB:8.0f}{ratio:8.2f}\n"
        )
    sys.stdout.write(f"rounds: {dict(counts)}\nordinary reads that failed: {Counter(wrong)}\n")
    kept = [name for name in warm if name != "tracebox" and after[name] > KEPT_LIMIT * warm[name]]
    return int(bool(kept or wrong))


def main() -> None:
    """Starts a mesh, abuses it and ends it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300)
    options = parser.parse_args()
    with running_mesh() as mesh:
        status = asyncio.run(measure(mesh, options.seconds))
    sys.exit(status)


if __name__ == "__main__":
    main()
