"""Does a request wait for the trace backend? Throughput, latency and time to stop, with four kinds of collector.

    .venv/bin/python bench/exporter.py --seconds 10 --rounds 3

The three services run as separate processes on free ports; the clients and the collector run in this one. Each round
runs every collector once. One row is the median of its rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Export = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]

PRODUCT = "/v1/products/TEA-0001"
SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


async def accept(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """A healthy collector: returns an empty ExportTraceServiceResponse at once."""
    return b""


async def accept_slowly(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """A collector that takes 5 s for each export."""
    await asyncio.sleep(5)
    return b""


async def reject(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """A collector that rejects everything."""
    await _context.abort(grpc.StatusCode.PERMISSION_DENIED, "not from you")
    return b""


COLLECTORS: dict[str, Export | None] = {"healthy": accept, "slow": accept_slowly, "rejecting": reject, "absent": None}


@dataclass(frozen=True)
class Result:
    """The result of one round of one collector; times in seconds."""

    rate: float
    median: float
    slowest_percent: float
    end: float
    lost: int


def free_port() -> int:
    """A free port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def collector(export: Export | None) -> AsyncIterator[dict[str, str]]:
    """Runs a collector; yields the variables that send traces to it."""
    address = f"127.0.0.1:{free_port()}"
    server = grpc.aio.server()
    if export:
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(export)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Export": handler})])
        server.add_insecure_port(address)
        await server.start()
    yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"}
    await server.stop(None)


@asynccontextmanager
async def service(module: str, variables: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of a service; kills it at the end if it still runs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = (sys.executable, "-m", module)
    process = await asyncio.create_subprocess_exec(*command, env=own | variables, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def drop_log(process: asyncio.subprocess.Process) -> int:
    """Reads a process's log to its end; returns the number of lost spans that it reports."""
    lost = 0
    assert process.stderr
    async for line in process.stderr:
        if line.startswith(b"{"):
            lost = json.loads(line).get("lost_spans", lost)
    return lost


async def ask(http: aiohttp.ClientSession, url: str, until: float, latencies: list[float]) -> None:
    """Requests a product again and again."""
    while (started := time.perf_counter()) < until:
        async with http.get(url) as response:
            response.raise_for_status()
            await response.read()
        latencies.append(time.perf_counter() - started)


async def measure(clients: int, seconds: float, url: str) -> list[float]:
    """The latencies of all requests of concurrent clients, after a second of warm-up."""
    latencies: list[float] = []
    async with aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"{url}{PRODUCT}?strict=true") as response:
                    response.raise_for_status()
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
        for length, durations in ((1.0, []), (seconds, latencies)):
            until = time.perf_counter() + length
            await asyncio.gather(*(ask(http, url + PRODUCT, until, durations) for _ in range(clients)))
    return sorted(latencies)


async def one_round(export: Export | None, clients: int, seconds: float, folder: Path) -> Result:
    """Runs the mesh under load with one collector, and stops the edge."""
    ports = {name: free_port() for name in ("edge", "inventory", "pricing")}
    variables = {f"{name.upper()}_LISTEN": f"127.0.0.1:{port}" for name, port in ports.items()}
    variables |= {f"{name.upper()}_DATABASE_URL": f"sqlite:///{folder / name}.db" for name in ("inventory", "pricing")}
    variables |= {f"EDGE_{name.upper()}_TARGET": f"127.0.0.1:{ports[name]}" for name in ("inventory", "pricing")}
    async with (
        collector(export) as endpoint,
        service("inventory", variables | endpoint) as inventory,
        service("pricing", variables | endpoint) as pricing,
        service("api_edge", variables | endpoint | {"EDGE_DRAIN_SECONDS": "0"}) as edge,
    ):
        logs = [asyncio.create_task(drop_log(process)) for process in (inventory, pricing, edge)]
        latencies = await measure(clients, seconds, f"http://127.0.0.1:{ports['edge']}")
        edge.send_signal(signal.SIGTERM)
        signalled = time.perf_counter()
        await edge.wait()
        end = time.perf_counter() - signalled
        slow = latencies[len(latencies) * 99 // 100]
        return Result(len(latencies) / seconds, statistics.median(latencies), slow, end, await logs[-1])


async def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    results: dict[str, list[Result]] = defaultdict(list)
    for _ in range(options.rounds):
        for name, export in COLLECTORS.items():
            with tempfile.TemporaryDirectory() as folder:
                results[name].append(await one_round(export, options.clients, options.seconds, Path(folder)))
    print("| collector | requests/s | median ms | 99 % ms | edge stops in s | edge spans lost |")
    print("|---|---|---|---|---|---|")
    for name, rounds in results.items():
        medians = [statistics.median(values) for values in zip(*(vars(one).values() for one in rounds), strict=True)]
        rate, median, slow, end, lost = medians
        print(f"| {name} | {rate:.0f} | {median * 1000:.1f} | {slow * 1000:.1f} | {end:.1f} | {lost:.0f} |")


if __name__ == "__main__":
    asyncio.run(main())
