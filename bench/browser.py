"""What does HTTP/2 gain for a page of many requests? A headless Chromium reads 100 products at once.

    make bench-gateways    after the other comparison; some minutes

Two browsers run, one with HTTP/2 and one without, and read from each server under TLS through a relay that delays each
direction: not at all, and by 20 ms. Each reading is a new page without connections, at first a small one, as a browser
loads a document before its scripts. The servers take turns, forwards in one round and backwards in the next. A cell is
the median of the rounds, with the fastest and the slowest.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from bench.gateways import SERVERS, behind
from bench.relay import relay
from bench.variants import Variant, free_port, running
from localmesh.gateways import certificate
from localmesh.gateways.nginx import NGINX
from tests.browser import CHROMIUM, running_browser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.relay import Relay
    from tests.browser import Browser

DELAYS = (0.0, 0.02)
"""Seconds of each direction."""

TRUSTING = "--ignore-certificate-errors"
FLAGS = {"http/1.1": (TRUSTING, "--disable-http2"), "h2": (TRUSTING,)}
"""Those of each browser, by the protocol that it prefers."""

READ = """(async () => {
  const begun = performance.now();
  const paths = [...Array(100).keys()].map((number) => `/v1/products/TEA-000${1 + number % 5}?quantity=${1 + number}`);
  const answers = await Promise.all(paths.map((path) => fetch(path, {cache: "no-store"})));
  const products = await Promise.all(answers.map((answer) => answer.json()));
  const ms = performance.now() - begun;
  const protocols = performance.getEntriesByType("resource").map((entry) => entry.nextHopProtocol);
  return {ms, read: products.filter((product) => product.sku).length, protocols: [...new Set(protocols)]};
})()"""


@dataclass(frozen=True)
class Way:
    """What a row of the table shows: a server, and what it speaks with the browser."""

    server: str
    protocol: str


@dataclass(frozen=True)
class Reading:
    """One page: ms until it had all products, and the connections that were opened."""

    ms: float
    connections: int


Found: TypeAlias = dict[Way, dict[float, list[Reading]]]
"""The readings by delay."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=8, help="the readings of each cell, of which the first is not counted"
    )
    options = parser.parse_args()
    if not CHROMIUM:
        sys.exit("Chromium is missing: apt-get install chromium-headless-shell, or chromium")
    with tempfile.TemporaryDirectory() as name, _servers(Path(name)) as servers:
        print(_table(asyncio.run(_measure(servers, Path(name), options.rounds))))


@contextmanager
def _servers(folder: Path) -> Iterator[dict[str, str]]:
    """The addresses of the servers, which are started: an edge with TLS on each, and nginx before another edge."""
    certificate.make(folder / "tls")
    tls = {
        "EDGE_TLS_CERT": str(folder / "tls" / certificate.CERT),
        "EDGE_TLS_KEY": str(folder / "tls" / certificate.KEY),
    }
    grpc = f"127.0.0.1:{free_port()}"
    variants = [Variant(name, {"EDGE_SERVER": name, **tls}) for name in SERVERS]
    with running([*variants, Variant("behind", {"EDGE_GRPC_LISTEN": grpc})], folder) as (*edges, last):
        own = {edge.variant.name: edge.urls[0].removeprefix("https://") for edge in edges}
        with behind(NGINX, last, grpc, folder) as gateway:
            yield {**own, NGINX.name: gateway.urls["REST, HTTP/2"].removeprefix("https://")}


async def _measure(servers: Mapping[str, str], folder: Path, rounds: int) -> Found:
    """The readings of all rounds but the first, which warms up."""
    ways = [Way(server, protocol) for server in servers for protocol in FLAGS if _speaks(server, protocol)]
    found: Found = {way: {delay: [] for delay in DELAYS} for way in ways}
    async with AsyncExitStack() as stack:
        browsers = {
            protocol: await stack.enter_async_context(running_browser(folder / protocol.replace("/", "-"), *flags))
            for protocol, flags in FLAGS.items()
        }
        relays = {
            (server, delay): await stack.enter_async_context(relay(address, delay))
            for server, address in servers.items()
            for delay in DELAYS
        }
        for number in range(rounds):
            for way in (list, reversed)[number % 2](ways):
                for delay in DELAYS:
                    reading = await _read(browsers[way.protocol], relays[way.server, delay], way)
                    if number:
                        found[way][delay].append(reading)
    return found


def _speaks(server: str, protocol: str) -> bool:
    return (server, protocol) != ("uvicorn", "h2")


async def _read(browser: Browser, network: Relay, way: Way) -> Reading:
    before = network.connections
    async with browser.tab() as tab:
        await tab.show(
            f"https://{network.address}/livez", "location.pathname === '/livez' && document.readyState === 'complete'"
        )
        page: Any = await tab.value(READ)
    if not page or page["read"] != 100 or page["protocols"] != [way.protocol]:
        sys.exit(f"{way.server} by {way.protocol}: {page}")
    return Reading(page["ms"], network.connections - before)


def _table(found: Found) -> str:
    lines = [
        "| | protocol | connections | without a delay, ms | with 40 ms of round trip, ms |",
        "|---|---|---:|---:|---:|",
    ]
    for way, by_delay in found.items():
        connections = median(reading.connections for readings in by_delay.values() for reading in readings)
        cells = [_cell([reading.ms for reading in by_delay[delay]]) for delay in DELAYS]
        lines.append(f"| {way.server} | {way.protocol} | {connections:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(times: Sequence[float]) -> str:
    return f"{median(times):.0f} ({min(times):.0f} to {max(times):.0f})"


if __name__ == "__main__":
    main()
