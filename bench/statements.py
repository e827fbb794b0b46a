"""What does a store cost, without gRPC? CPU time of one call in the process, threads included.

    .venv/bin/python bench/statements.py --postgres postgresql://postgres@127.0.0.1:5432/postgres

The databases are new: SQLite files in a temporary directory, and with `--postgres` databases of that server, whose own
CPU time does not count. A cell is the fastest of many short loops, alone and 16 calls at once, in a trace whose spans
are dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.trace import TracerProvider

import inventory.app
import inventory.domain
import pricing.app
import pricing.domain
from inventory.store import InventoryStore
from meshkit.database import check_database, open_database
from meshkit.lifecycle import event_loop
from meshkit.service import utc_now
from pricing.store import PriceStore

sys.path.append(str(Path(__file__).parents[1]))

from tests.private_postgres import empty_databases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import ModuleType

    from meshkit.database import Database

    Calls = Mapping[str, Callable[[], Awaitable[object]]]

AT_ONCE = 16
TRACER = TracerProvider().get_tracer("bench")


@asynccontextmanager
async def open_prepared(url: str, service: ModuleType) -> AsyncIterator[Database]:
    """The migrated and seeded database of a service, by the names in its module `app`."""
    async with open_database(url, service.DatabaseUnavailable, TRACER, NoOpMeter("bench"), patience=60) as database:
        await check_database(database, service.MIGRATIONS, service.seed)
        yield database


@asynccontextmanager
async def open_calls(urls: list[str]) -> AsyncIterator[Calls]:
    """What is measured, by name, on the databases of inventory and pricing."""
    async with AsyncExitStack() as stack:
        services = zip(urls, (inventory.app, pricing.app), strict=True)
        stocks, prices = [await stack.enter_async_context(open_prepared(*each)) for each in services]
        stock = InventoryStore(stocks, utc_now, timedelta(minutes=15), TRACER)
        price = PriceStore(prices, utc_now, TRACER)
        skus = [each.sku for each in (await stock.page("", 100)).stocks]
        await stock.adjust(inventory.domain.Adjustment(new_id(), skus[0], 10**9))
        yield {
            "stock of 1": lambda: stock.stocks(skus[:1]),
            "stock of 16": lambda: stock.stocks(skus[:16]),
            "page of 50": lambda: stock.page("", 50),
            "price book of 1": lambda: price.price_book(skus[:1], "JPY"),
            "price book of 16": lambda: price.price_book(skus[:16], "JPY"),
            "reserve": lambda: stock.reserve(reservation(skus[0])),
            "create quote": lambda: price.create_quote(order(skus[0])),
        }


def new_id() -> str:
    """A random id."""
    return str(uuid.uuid4())


def reservation(sku: str) -> inventory.domain.ReservationRequest:
    """A new request for one unit."""
    return inventory.domain.ReservationRequest(new_id(), new_id(), (inventory.domain.Line(sku, 1),), "digest")


def order(sku: str) -> pricing.domain.Order:
    """A new order of one unit."""
    return pricing.domain.Order(new_id(), (pricing.domain.Line(sku, 1),), "EUR", "digest", new_id())


async def cost(call: Callable[[], Awaitable[object]], at_once: int, seconds: float) -> float:
    """The microseconds of CPU of one call: the fastest loop of a few calls."""
    fastest, until = float("inf"), time.monotonic() + seconds
    calls = 4 if at_once == 1 else 1
    with TRACER.start_as_current_span("bench"):
        while time.monotonic() < until:
            begun = time.process_time_ns()
            for _ in range(calls):
                if at_once == 1:
                    await call()
                else:
                    await asyncio.gather(*(call() for _ in range(at_once)))
            fastest = min(fastest, (time.process_time_ns() - begun) / (calls * at_once) / 1000)
    return fastest


async def measure(title: str, urls: list[str], only: str, seconds: float) -> None:
    """Prints one table."""
    print(f"| {title}, µs of CPU | alone | {AT_ONCE} at once |\n|---|---|---|")
    async with open_calls(urls) as found:
        gc.freeze()
        for name, call in found.items():
            if only in name:
                costs = [await cost(call, at_once, seconds) for at_once in (1, AT_ONCE)]
                print(f"| {name} | {costs[0]:.0f} | {costs[1]:.0f} |", flush=True)


async def main() -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", help="the URL of a server, as a user who may create databases")
    parser.add_argument("--only", default="", help="measure only calls whose name contains this")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each cell")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite:///{folder}/{name}.db" for name in ("inventory", "pricing")]
        await measure("SQLite", urls, arguments.only, arguments.seconds)
    if arguments.postgres:
        async with empty_databases(arguments.postgres, 2) as urls:
            await measure("PostgreSQL", urls, arguments.only, arguments.seconds)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(main())
