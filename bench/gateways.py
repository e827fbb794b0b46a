"""What does a gateway, or a server with HTTP/2, add to a call? Requests a second, p99, CPU and memory.

    make bench-gateways    some minutes; it installs the gateways

Four edges run, traced: three with one server each, and one behind all gateways. h2load sends bursts of the same calls
to each in turn, forwards in one round and backwards in the next: 32 at a time, on as many connections of HTTP/1.1 or 8
of HTTP/2. A cell is the median of the rounds, and in brackets its ratio to the edge alone on uvicorn. h2load and the
services behind the edge are not in the CPU. The gateways have TLS, the edges alone have none.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, TypeAlias

import httpx
import psutil

from bench.load import SETTLE_SECONDS
from bench.protocols import FRAME, PATH
from bench.variants import START_SECONDS, Variant, cpu_seconds, free_port, running
from localmesh.gateways import certificate
from localmesh.gateways.gateway import Addresses
from localmesh.gateways.install import install
from localmesh.gateways.known import GATEWAYS
from localmesh.gateways.process import running as program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.variants import Running
    from localmesh.gateways.gateway import Gateway

ALONE = "uvicorn"
SERVERS = (ALONE, "hypercorn", "granian")
READ = "/v1/products/TEA-0002"
CONNECT = b'{"sku": "TEA-0002"}'


@dataclass(frozen=True)
class Protocol:
    """How a product is read: by 32 callers, on as many connections of HTTP/1.1, or on 8 of HTTP/2."""

    name: str
    path: str
    is_http2: bool
    body: bytes = b""
    content_type: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Those of the request."""
        return {"Content-Type": self.content_type, "TE": "trailers"} if self.body else {}

    def options(self, folder: Path) -> list[str]:
        """Those of h2load."""
        options = ["-c8", "-m4"] if self.is_http2 else ["--h1", "-c32"]
        if self.body:
            (folder / "body").write_bytes(self.body)
            options += ["-d", str(folder / "body")]
        return [*options, *(f"-H{name}: {value}" for name, value in self.headers.items())]

    def is_answered(self, url: str) -> bool:
        """Whether the product is in the answer."""
        method = "POST" if self.body else "GET"
        is_only_http2 = self.is_http2 and url.startswith("http:")
        with httpx.Client(http1=not is_only_http2, http2=self.is_http2, verify=False) as client:  # noqa: S501 - our own
            try:
                answer = client.request(method, url + self.path, content=self.body, headers=self.headers)
            except httpx.TransportError:
                return False
            return b"TEA-0002" in answer.content


PROTOCOLS = (
    Protocol("REST, HTTP/1.1", READ, is_http2=False),
    Protocol("REST, HTTP/2", READ, is_http2=True),
    Protocol("Connect, HTTP/1.1", PATH, is_http2=False, body=CONNECT, content_type="application/json"),
    Protocol("Connect, HTTP/2", PATH, is_http2=True, body=CONNECT, content_type="application/json"),
    Protocol("gRPC", PATH, is_http2=True, body=FRAME, content_type="application/grpc"),
)


@dataclass(frozen=True)
class Way:
    """A server or a gateway, and where it takes each protocol.

    Attributes:
        urls: by the name of the protocol; a protocol without a URL is not spoken.
        edge: the process of its edge.
        gateway: the process of the gateway; None for an edge alone.
    """

    name: str
    urls: Mapping[str, str]
    edge: psutil.Process
    gateway: psutil.Process | None = None

    def gateway_processes(self) -> list[psutil.Process]:
        """The gateway and its workers."""
        return [self.gateway, *self.gateway.children(recursive=True)] if self.gateway else []

    def gateway_seconds(self) -> float:
        """The CPU that they have used."""
        return sum(map(cpu_seconds, self.gateway_processes()))


@dataclass(frozen=True)
class Burst:
    """Requests per second, ms, and µs per request."""

    rate: float
    p99: float
    edge: float
    gateway: float


Found: TypeAlias = dict[tuple[str, str], list[Burst]]
"""The bursts by protocol and way."""


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=800, help="the calls of a burst")
    parser.add_argument(
        "--rounds", type=int, default=4, help="the bursts of each cell, of which the first does not count"
    )
    options = parser.parse_args()
    if not shutil.which("h2load"):
        sys.exit("h2load is missing: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as name, _ways(Path(name)) as ways:
        print(_table(_measure(ways, options.calls, options.rounds)))
        print(_memory(ways))


@contextmanager
def _ways(folder: Path) -> Iterator[list[Way]]:
    """The edges and the gateways, started."""
    grpc = {name: f"127.0.0.1:{free_port()}" for name in (*SERVERS, "behind")}
    variants = [
        Variant(name, {"EDGE_GRPC_LISTEN": address, "EDGE_SERVER": name if name in SERVERS else ALONE})
        for name, address in grpc.items()
    ]
    with ExitStack() as stack:
        *edges, last = stack.enter_context(running(variants, folder))
        ways = [_alone(edge, grpc[edge.variant.name]) for edge in edges]
        certificate.make(folder / "tls")
        ways += [stack.enter_context(behind(each, last, grpc["behind"], folder)) for each in GATEWAYS.values()]
        for way in ways:
            _wait(way)
        yield ways


def _alone(edge: Running, grpc: str) -> Way:
    """An edge alone: uvicorn by HTTP/1.1 and on the port of gRPC, the others by HTTP/2 on one port."""
    (url,), name = edge.urls, edge.variant.name
    version = "HTTP/1.1" if name == ALONE else "HTTP/2"
    urls = {f"REST, {version}": url, f"Connect, {version}": url}
    if name != "granian":
        urls["gRPC"] = f"http://{grpc}" if name == ALONE else url
    return Way(name, urls, *edge.processes["edge"])


@contextmanager
def behind(gateway: Gateway, edge: Running, grpc: str, folder: Path) -> Iterator[Way]:
    """A gateway in front of an edge, as `make up` configures it."""
    install(gateway, gateway.installed, print)
    own, tls, (process,) = folder / f"gateway-{gateway.name}", folder / "tls", edge.processes["edge"]
    addresses = Addresses(
        listen=f"127.0.0.1:{free_port()}",
        rest=(edge.urls[0].removeprefix("http://"),),
        grpc=(grpc,),
        cert=tls / certificate.CERT,
        key=tls / certificate.KEY,
        traces=process.environ()["OTEL_EXPORTER_OTLP_ENDPOINT"].removeprefix("http://"),
    )
    with program(gateway, own, addresses) as started:
        urls = {each.name: f"https://{addresses.listen}" for each in PROTOCOLS}
        yield Way(gateway.name, urls, process, psutil.Process(started.pid))


def _wait(way: Way) -> None:
    """Waits until every protocol is answered. Raises TimeoutError."""
    deadline = time.monotonic() + START_SECONDS
    for protocol in PROTOCOLS:
        while protocol.name in way.urls and not protocol.is_answered(way.urls[protocol.name]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{way.name} does not answer {protocol.name}")
            time.sleep(0.1)


def _measure(ways: Sequence[Way], calls: int, rounds: int) -> Found:
    """The bursts of all rounds but the first, which warms up."""
    found: Found = defaultdict(list)
    cells = [(way, protocol) for protocol in PROTOCOLS for way in ways if protocol.name in way.urls]
    for number in range(rounds):
        for way, protocol in (list, reversed)[number % 2](cells):
            burst = _burst(way, protocol, calls)
            if number:
                found[protocol.name, way.name].append(burst)
    return found


def _burst(way: Way, protocol: Protocol, calls: int) -> Burst:
    edge, gateway = cpu_seconds(way.edge), way.gateway_seconds()
    rate, times = _h2load(way, protocol, calls)
    if len(times) < calls:
        sys.exit(f"{way.name}, {protocol.name}: {calls - len(times)} of {calls} calls failed")
    time.sleep(SETTLE_SECONDS)
    spent = cpu_seconds(way.edge) - edge, way.gateway_seconds() - gateway
    return Burst(rate, quantiles(times, n=100)[-1], *(seconds / calls * 1e6 for seconds in spent))


def _h2load(way: Way, protocol: Protocol, calls: int) -> tuple[float, list[float]]:
    """Requests per second, and the time of each that succeeded, in ms."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ["-n", str(calls), f"--log-file={folder / 'log'}", *protocol.options(folder)]
        command = ["h2load", *options, way.urls[protocol.name] + protocol.path]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines = [line.split() for line in (folder / "log").read_text(encoding="ascii").splitlines()]
    rate = re.search(r"([\d.]+) req/s", printed)
    return float(rate[1]) if rate else 0.0, [int(time) / 1000 for _, status, time in lines if status == "200"]


def _table(found: Found) -> str:
    lines = [
        "| protocol | | requests/s | p99, ms | CPU of the edge, µs | CPU of the gateway, µs |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (protocol, way), bursts in sorted(found.items(), key=_place):
        alone = found.get((protocol, ALONE)) or found[protocol.replace("HTTP/2", "HTTP/1.1"), ALONE]
        cells = [
            _cell([getattr(burst, name) for burst in bursts], [getattr(burst, name) for burst in alone])
            for name in ("rate", "p99", "edge")
        ]
        added = median(burst.gateway for burst in bursts)
        lines.append(f"| {protocol} | {way} | {' | '.join(cells)} | {f'{added:.0f}' if added else 'none'} |")
    return "\n".join(lines)


def _place(item: tuple[tuple[str, str], list[Burst]]) -> tuple[int, int]:
    """The place of a row: by protocol, the edges alone before the gateways."""
    protocol, way = item[0]
    return [each.name for each in PROTOCOLS].index(protocol), [*SERVERS, *GATEWAYS].index(way)


def _cell(own: Sequence[float], alone: Sequence[float]) -> str:
    return f"{median(own):.{0 if median(own) >= 100 else 1}f} ({median(own) / median(alone):.2f})"


def _memory(ways: Sequence[Way]) -> str:
    """The proportional set size of each edge alone, and of each gateway, after the load."""
    lines = ["", "| | memory, MB |", "|---|---:|"]
    for way in ways:
        pss = sum(process.memory_full_info().pss for process in way.gateway_processes() or [way.edge])
        lines.append(f"| {way.name} | {pss / 1e6:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
