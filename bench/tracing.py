"""What do traces cost? CPU time of one unary call on both sides: untraced, traced by meshkit, traced by contrib.

    .venv/bin/python bench/tracing.py --calls 3000 --rounds 5

Each measurement is a separate process with a server and a client, one call after the other over loopback. Every round
measures each kind once. Spans go to a BatchSpanProcessor whose exporter drops them. One row has the median, the minimum
and the maximum of its rounds.
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
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from meshkit.client.channel import open_channel
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.telemetry import Telemetry
from meshkit.telemetry.spans import TracerProvider
from meshkit.testing import start_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

SERVICE, METHOD = "bench.Echo", "Say"
KINDS = {
    "plain grpc.aio": None,
    "meshkit, nothing sampled": Telemetry(TracerProvider(ALWAYS_OFF)),
    "meshkit, traced": Telemetry(TracerProvider(ALWAYS_ON)),
    "meshkit, traced by contrib": Telemetry(TracerProvider(ALWAYS_ON), instrumentation="contrib"),
}
WARM_UP = 300


class DroppingExporter(SpanExporter):
    """Accepts spans and drops them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Drops the spans."""
        del spans
        return SpanExportResult.SUCCESS


async def say(request: bytes, _context: object) -> bytes:
    """Returns the request."""
    return request


def add(server: grpc.aio.Server) -> None:
    """Registers the one method."""
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {METHOD: grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


async def healthy() -> None:
    """A health check without dependencies."""


@asynccontextmanager
async def connected(telemetry: Telemetry | None) -> AsyncIterator[Any]:
    """A channel to a server in this process: both from meshkit, or plain gRPC without telemetry."""
    if telemetry is None:
        server = grpc.aio.server()
        add(server)
        async with start_server(server) as address, grpc.aio.insecure_channel(address) as channel:
            yield channel
        return
    telemetry.tracer_provider.add_span_processor(BatchSpanProcessor(DroppingExporter()))
    health = Health(SERVICE, healthy)
    server = build_server(services={SERVICE: add}, health=health, telemetry=telemetry)
    watching = asyncio.create_task(health.watch())
    async with (
        start_server(server) as address,
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
        start = time.process_time()
        for _ in range(calls):
            await method(b"hello")
        return (time.process_time() - start) / calls * 1e6


def measure_in_process(kind: str, calls: int) -> float:
    """The same in a separate process, without its log, whose cost is another question."""
    command = [sys.executable, __file__, "--kind", kind, "--calls", str(calls)]
    process = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "GRPC_VERBOSITY": "NONE"}
    )
    return float(json.loads(process.stdout))


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
    times_by_kind: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for kind in KINDS:
            times_by_kind[kind].append(measure_in_process(kind, options.calls))
    base = statistics.median(times_by_kind["plain grpc.aio"])
    sys.stdout.write(f"{'CPU of one unary call, both sides':36}{'median':>10}{'min':>8}{'max':>8}{'extra':>8}\n")
    for kind, times in times_by_kind.items():
        median = statistics.median(times)
        sys.stdout.write(f"{kind:36}{median:7.0f} µs{min(times):8.0f}{max(times):8.0f}{median - base:+8.0f}\n")


if __name__ == "__main__":
    main()
