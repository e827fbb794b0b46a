"""What do traces cost? CPU time of one unary call on both sides: untraced, traced by meshkit, traced by contrib.

    .venv/bin/python bench/tracing.py --calls 3000 --rounds 5

Each measurement is a process of its own with a server and a client in it, one call after the other over loopback. Every
round takes each kind once. Spans go to a BatchSpanProcessor whose exporter drops them. One row is the median of its
rounds, with the least and the most beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from meshkit.client.channel import open_channel
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.telemetry import Telemetry
from meshkit.testing import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

SERVICE, METHOD = "bench.Echo", "Say"
KINDS = {
    "grpc.aio alone": None,
    "meshkit, nothing sampled": Telemetry(TracerProvider(ALWAYS_OFF)),
    "meshkit, traced": Telemetry(TracerProvider(ALWAYS_ON)),
    "meshkit, traced by contrib": Telemetry(TracerProvider(ALWAYS_ON), instrumentation="contrib"),
}
WARM_UP = 300


class Nowhere(SpanExporter):
    """Takes spans and drops them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Nothing is kept."""
        del spans
        return SpanExportResult.SUCCESS


async def say(request: bytes, _context: object) -> bytes:
    """Answers what it was asked."""
    return request


def add(server: grpc.aio.Server) -> None:
    """Registers the one method."""
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {METHOD: grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


async def healthy() -> None:
    """Depends on nothing."""


@asynccontextmanager
async def connected(telemetry: Telemetry | None) -> AsyncIterator[Any]:
    """A channel to a server in this process: meshkit's both, or without telemetry gRPC's own."""
    if telemetry is None:
        server = grpc.aio.server()
        add(server)
        async with listening(server) as address, grpc.aio.insecure_channel(address) as channel:
            yield channel
        return
    telemetry.tracer_provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    health = Health(SERVICE, healthy)
    server = build_server(services={SERVICE: add}, health=health, telemetry=telemetry)
    watching = asyncio.create_task(health.watch())
    async with (
        listening(server) as address,
        open_channel(address, service=SERVICE, repeatable=(), limit=10, telemetry=telemetry) as channel,
    ):
        await channel.channel_ready()
        yield channel
        watching.cancel()


async def measure(kind: str, calls: int) -> float:
    """Microseconds of CPU time of one call, both sides, all threads."""
    async with connected(KINDS[kind]) as channel:
        method = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        for _ in range(WARM_UP):
            await method(b"hello")
        began = time.process_time()
        for _ in range(calls):
            await method(b"hello")
        return (time.process_time() - began) / calls * 1e6


def measured(kind: str, calls: int) -> float:
    """The same in a process of its own, whose log is left out: it is written at the price of another question."""
    command = [sys.executable, __file__, "--kind", kind, "--calls", str(calls)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "GRPC_VERBOSITY": "NONE"}
    )
    return float(json.loads(done.stdout))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        sys.stdout.write(json.dumps(asyncio.run(measure(options.kind, options.calls))))
        return
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for kind in KINDS:
            found[kind].append(measured(kind, options.calls))
    least = statistics.median(found["grpc.aio alone"])
    sys.stdout.write(f"{'CPU of one unary call, both sides':36}{'median':>10}{'least':>8}{'most':>8}{'more':>8}\n")
    for kind, times in found.items():
        middle = statistics.median(times)
        sys.stdout.write(f"{kind:36}{middle:7.0f} µs{min(times):8.0f}{max(times):8.0f}{middle - least:+8.0f}\n")


if __name__ == "__main__":
    main()
