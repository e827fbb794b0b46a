"""What does a call of the storefront cost the edge in each protocol? CPU of its process for one product.

    make bench-protocols    some minutes

One edge, traced, serves bursts of the same calls in turn: forwards in one round, backwards in the next. A cell is the
median of the rounds. The clients run in this process, whose CPU does not count: aiohttp for HTTP, grpc.aio for gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
from yarl import URL

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from bench.variants import Variant, free_port, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from bench.variants import Running

    Call = Callable[[], Awaitable[object]]

PATH = "/aiomesh.storefront.v1.StorefrontService/GetProduct"
PRODUCT = pb.GetProductRequest(sku="TEA-0002")
BINARY = PRODUCT.SerializeToString()
FRAME = b"\0" + len(BINARY).to_bytes(4, "big") + BINARY
PLAIN = {"Accept-Encoding": "identity"}
CALLERS = (1, 32)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=800, help="the calls of a burst")
    parser.add_argument("--rounds", type=int, default=5, help="the bursts of each protocol")
    options = parser.parse_args()
    address = f"127.0.0.1:{free_port()}"
    with (
        tempfile.TemporaryDirectory() as folder,
        running([Variant("traced", {"EDGE_GRPC_LISTEN": address})], Path(folder)) as (edge,),
    ):
        asyncio.run(_compare(edge, address, options.calls, options.rounds))


async def _compare(edge: Running, address: str, calls: int, rounds: int) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        grpc.aio.insecure_channel(address) as channel,
    ):
        protocols = _protocols(http, edge.urls[0], pb_grpc.StorefrontServiceStub(channel))
        for name, call in protocols.items():  # the first call loads connectrpc
            assert b"TEA-0002" in await call(), name
        found: dict[tuple[str, int], list[float]] = defaultdict(list)
        for number in range(rounds):
            for name in (list, reversed)[number % 2](list(protocols)):
                for callers in CALLERS:
                    found[name, callers].append(await _burst(edge, protocols[name], callers, calls))
    print(_table(list(protocols), found))


def _protocols(http: aiohttp.ClientSession, url: str, stub: Any) -> dict[str, Any]:
    async def rest() -> bytes:
        async with http.get(f"{url}/v1/products/TEA-0002") as response:
            return await response.read()

    def post(data: bytes, **headers: str) -> Callable[[], Awaitable[bytes]]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}

        async def call() -> bytes:
            async with http.post(url + PATH, data=data, headers=fields) as response:
                return await response.read()

        return call

    async def get() -> bytes:
        query = "?connect=v1&encoding=json&message=%7B%22sku%22%3A%22TEA-0002%22%7D"
        async with http.get(URL(url + PATH + query, encoded=True), headers=PLAIN) as response:
            return await response.read()

    async def native() -> bytes:
        return bytes((await stub.GetProduct(PRODUCT)).SerializeToString())

    text = json.dumps({"sku": "TEA-0002"}).encode()
    return {
        "REST": rest,
        "gRPC": native,
        "Connect, binary": post(BINARY, Content_Type="application/proto", Accept_Encoding="identity"),
        "Connect, binary, gzip": post(
            gzip.compress(BINARY), Content_Type="application/proto", Content_Encoding="gzip", Accept_Encoding="gzip"
        ),
        "Connect, JSON": post(text, Content_Type="application/json", Accept_Encoding="identity"),
        "Connect, JSON, GET": get,
        "gRPC-Web": post(FRAME, Content_Type="application/grpc-web+proto"),
    }


async def _burst(edge: Running, call: Call, callers: int, calls: int) -> float:
    """The CPU of the edge for one call, in microseconds."""
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await call()

    before = edge.cpu_seconds()["edge"]
    await asyncio.gather(*(caller() for _ in range(callers)))
    time.sleep(0.3)  # noqa: ASYNC251 - nothing else runs, and the last export counts
    return (edge.cpu_seconds()["edge"] - before) / calls * 1e6


def _table(names: Sequence[str], found: Mapping[tuple[str, int], Sequence[float]]) -> str:
    """The rows, each with its ratio to REST."""
    head = [f"{callers} caller{'s' if callers > 1 else ''}" for callers in CALLERS]
    lines = [("protocol", *head), ("---",) * (len(head) + 1)]
    for name in names:
        pairs = [(median(found[name, callers]), median(found["REST", callers])) for callers in CALLERS]
        cells = (f"{own:.0f} µs ({own / rest:.2f})" for own, rest in pairs)
        lines.append((name, *cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
