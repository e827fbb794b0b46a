"""Inventory and pricing over gRPC, and storefronts in front of them that can be killed at any call."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from sqlalchemy import func, select

import inventory.tables
import pricing.tables
import tests.inventory.opened
import tests.pricing.opened
from api_edge.app import open_storefront
from api_edge.clients import INVENTORY_API, PRICING_API, InventoryClient, PricingClient
from api_edge.purge import purge
from api_edge.storefront import Storefront
from inventory.servicer import InventoryServicer
from meshkit.client.channel import open_channel
from meshkit.errors import FailedPrecondition, Internal
from meshkit.testing import FakeClock, SpanCapture
from pricing.servicer import PricingServicer
from tests.databases import Seeded
from tests.edge.mesh import start_inventory, start_pricing
from tests.inventory.opened import HOLD, store_on
from tests.open_spans import OpenSpans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from inventory.store import InventoryStore

RETENTION = timedelta(hours=24)
MADE, REFUSED, LOST, FAILED = "made", "refused", "lost", "failed"
ROLE = "test-role"
"""Metadata that marks the calls to which the outcomes apply."""

COUNTS = {
    name: select(
        *(
            select(func.count()).select_from(table).scalar_subquery().label(table.name)
            for table in metadata.sorted_tables
            if table.name.startswith(("reservation", "quote_", "quotes"))
        )
    )
    for name, metadata in (("inventory", inventory.tables.metadata), ("pricing", pricing.tables.metadata))
}
"""The statement that counts the rows of the tables that orders fill, by service."""


@dataclass
class Script:
    """What happens to the marked calls that make the two halves of an order.

    Attributes:
        outcomes: by method, one of MADE; REFUSED; LOST, made but the response is an error; and FAILED, not made.
        reached: counts the calls that have done their work and not yet responded.
        respond: whether they may respond.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    reached: int = 0
    respond: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self, outcomes: dict[str, str] | None = None, *, respond: bool = False) -> None:
        """Begins another attempt, with these outcomes."""
        self.outcomes, self.reached, self.respond = outcomes or {}, 0, asyncio.Event()
        if respond:
            self.respond.set()

    async def play(self, method: str, context: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        """Does the work of a call, and what the script has for it."""
        if (ROLE, "ours") not in context.invocation_metadata():
            return await work()
        outcome = self.outcomes.get(method, MADE)
        response = await work() if outcome in {MADE, LOST} else None
        self.reached += 1
        await self.respond.wait()
        if outcome == REFUSED:
            raise FailedPrecondition("refused on purpose")
        if outcome != MADE:
            raise Internal("failed on purpose")
        return response


class ScriptedInventory(InventoryServicer):
    """The real one, whose ReserveStock follows a script."""

    def __init__(self, script: Script, store: InventoryStore) -> None:
        super().__init__(store)
        self._script = script

    async def ReserveStock(self, request: Any, context: Any) -> Any:
        return await self._script.play(
            "ReserveStock", context, lambda: super(type(self), self).ReserveStock(request, context)
        )


class ScriptedPricing(PricingServicer):
    """The real one, whose CreateQuote follows a script."""

    def __init__(self, script: Script, store: Any) -> None:
        super().__init__(store)
        self._script = script

    async def CreateQuote(self, request: Any, context: Any) -> Any:
        return await self._script.play(
            "CreateQuote", context, lambda: super(type(self), self).CreateQuote(request, context)
        )


class Killed(grpc.aio.UnaryUnaryClientInterceptor):
    """Ends a process at its calls: those in `before` are never sent, and from then on nothing happens in it.

    Attributes:
        ended: the methods whose calls have ended.
        held: the methods that were not sent.
    """

    def __init__(self, before: frozenset[str] = frozenset(), role: str = "") -> None:
        self.before, self._role, self._changed = before, role, asyncio.Event()
        self.ended: set[str] = set()
        self.held: set[str] = set()

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Sends a call and waits for its response, or holds it for good."""
        method = details.method.decode().rpartition("/")[2]
        if method in self.before:
            self.held.add(method)
            self._changed.set()
            await asyncio.Event().wait()
        if self._role:
            details.metadata.add(ROLE, self._role)
        call = await continuation(details, request)
        await call.code()
        self.ended.add(method)
        self._changed.set()
        return call

    async def wait(self, ended: set[str], held: set[str]) -> None:
        """Waits until these calls have ended or are held."""
        while not (ended <= self.ended and held <= self.held):
            self._changed.clear()
            await self._changed.wait()


_process: ContextVar[Killed] = ContextVar("process")


class OfProcess(grpc.aio.UnaryUnaryClientInterceptor):
    """Lets processes share channels: a call passes through the process whose task makes it."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Passes the call on."""
        return await _process.get().intercept_unary_unary(continuation, details, request)


@dataclass
class Backends:
    """Both services with their databases, clients of them, and a storefront that is never killed."""

    addresses: dict[str, str]
    seeded: dict[str, Seeded]
    stock: InventoryStore
    clock: FakeClock
    script: Script
    capture: SpanCapture
    open_spans: OpenSpans
    clients: tuple[InventoryClient, PricingClient]
    clients_of_processes: tuple[InventoryClient, PricingClient]
    shop: Storefront

    async def restore(self) -> None:
        """Gives the databases the rows of their seeds, when all calls have ended, and forgets script and spans."""
        await self.open_spans.until_ended()
        for seeded in self.seeded.values():
            await seeded.restore()
        self.capture.exporter.clear()
        self.script.reset()

    @asynccontextmanager
    async def storefront(self, process: Killed) -> AsyncIterator[Storefront]:
        """The storefront of another process. If it was killed, its calls are dropped at the end of the block."""
        _process.set(process)
        storefront = Storefront(*self.clients_of_processes)
        yield storefront
        if not process.held:
            await storefront.close()
        while dropped := list(storefront._tasks):
            for task in dropped:
                task.cancel()
            await asyncio.wait(dropped)

    async def rows(self) -> dict[str, int]:
        """The number of rows in each table that orders fill."""
        found: dict[str, int] = {}
        for name, statement in COUNTS.items():
            async with self.seeded[name].database.read() as connection:
                found |= (await connection.execute(statement)).mappings().one()
        return found

    async def expire_and_purge(self) -> None:
        """Time passes until orders that were not committed are forgotten."""
        self.clock.advance(HOLD + RETENTION + timedelta(seconds=1))
        while await self.stock.sweep():
            pass
        await purge(*self.clients, self.clock() - RETENTION)


@asynccontextmanager
async def open_clients(
    addresses: dict[str, str], capture: SpanCapture, *interceptors: grpc.aio.ClientInterceptor
) -> AsyncIterator[tuple[InventoryClient, PricingClient]]:
    """Clients of both services, on channels of their own."""
    channels = [
        open_channel(
            addresses[name],
            service=api.name,
            repeatable=api.repeatable,
            limit=10,
            telemetry=capture.telemetry,
            interceptors=interceptors,
        )
        for name, api in (("inventory", INVENTORY_API), ("pricing", PRICING_API))
    ]
    async with channels[0] as stock, channels[1] as prices:
        yield InventoryClient(stock), PricingClient(prices)


@asynccontextmanager
async def backends(inventory_url: str, pricing_url: str) -> AsyncIterator[Backends]:
    """Starts both on two databases, which are migrated and seeded."""
    capture, clock, script, open_spans = SpanCapture("test"), FakeClock(), Script(), OpenSpans()
    capture.telemetry.tracer_provider.add_span_processor(open_spans)
    async with (
        start_inventory(inventory_url, capture, clock, partial(ScriptedInventory, script)) as stock,
        start_pricing(pricing_url, capture, clock, partial(ScriptedPricing, script)) as prices,
        tests.inventory.opened.prepare_database(inventory_url, capture) as stock_database,
        tests.pricing.opened.prepare_database(pricing_url, capture) as price_database,
        open_clients(addresses := {"inventory": stock, "pricing": prices}, capture) as clients,
        open_clients(addresses, capture, OfProcess()) as clients_of_processes,
        open_storefront(*clients) as shop,
    ):
        seeded = {
            "inventory": await Seeded.read(stock_database, inventory.tables.metadata),
            "pricing": await Seeded.read(price_database, pricing.tables.metadata),
        }
        store = store_on(stock_database, capture, clock)
        yield Backends(
            addresses, seeded, store, clock, script, capture, open_spans, clients, clients_of_processes, shop
        )
