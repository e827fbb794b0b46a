"""The purge that the edge does in the background."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from api_edge.domain import Line
from api_edge.purge import purge, purge_forever
from api_edge.rules import order_id
from api_edge.settings import Settings
from meshkit.errors import FailedPrecondition, Internal
from meshkit.lifecycle import running
from meshkit.service import utc_now
from meshkit.testing import SpanCapture
from tests.edge.backends import RETENTION, Backends, Killed, backends, open_clients
from tests.edge.mesh import absent_server, seed, start_edge
from tests.inventory.opened import HOLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOMENT = timedelta(seconds=1)
PAGE = 100
"""How many orders a purge lists, reads and deletes at a time."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backends]:
    folder = tmp_path_factory.mktemp("purge")
    async with backends(await seed(folder / "inventory.db"), await seed(folder / "pricing.db")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(shared_mesh: Backends) -> Backends:
    await shared_mesh.restore()
    shared_mesh.script.reset(respond=True)
    return shared_mesh


async def place(mesh: Backends, *, commit: bool = False, release: bool = False) -> str:
    """An order of one unit; its id."""
    key = str(uuid.uuid4())
    await mesh.shop.place_order(key, [Line("TEA-0001", 1)], "EUR")
    if commit:
        await mesh.shop.commit_order(order_id(key))
    if release:
        await mesh.shop.release_order(order_id(key))
    return order_id(key)


async def purge_now(mesh: Backends) -> None:
    await purge(*mesh.clients, mesh.clock() - RETENTION)


async def test_the_edge_purges_ended_orders_while_it_runs_and_only_deletions_make_traces(mesh: Backends) -> None:
    """The clock of the edge is far ahead of that of the services."""
    edge = SpanCapture("api_edge")
    await place(mesh, commit=True)
    await place(mesh, release=True)
    settings = Settings(
        inventory_target=mesh.addresses["inventory"],
        pricing_target=mesh.addresses["pricing"],
        purge_seconds=0.01,
    )
    async with start_edge(settings, edge):
        while (await mesh.rows())["reservations"] > 1:
            await asyncio.sleep(0.01)
    assert await mesh.rows() == {
        "reservations": 1,
        "reservation_lines": 1,
        "reservation_attempts": 0,
        "quotes": 1,
        "quote_lines": 1,
        "quote_attempts": 0,
    }
    assert edge.spans() == []
    purges = [span for span in mesh.capture.spans() if span.name.startswith("purge")]
    assert [span.name for span in purges] == ["purge quotes", "purge reservations"]
    assert [span.parent for span in purges] == [None, None]
    assert not [span for span in mesh.capture.spans() if "ListUnsettledQuotes" in span.name]


async def test_an_order_is_remembered_until_its_retention_is_over(mesh: Backends) -> None:
    await place(mesh, release=True)
    before = await mesh.rows()
    mesh.clock.advance(HOLD + RETENTION)
    await purge_now(mesh)
    assert await mesh.rows() == before
    mesh.clock.advance(MOMENT)
    await purge_now(mesh)
    assert set((await mesh.rows()).values()) == {0}


async def test_an_order_whose_hold_ended_recently_is_kept_though_its_quote_is_old(mesh: Backends) -> None:
    """Its reservation is not even swept yet."""
    await place(mesh)
    before = await mesh.rows()
    mesh.clock.advance(RETENTION + MOMENT)
    await purge_now(mesh)
    assert await mesh.rows() == before


async def test_more_orders_than_a_page_are_purged_and_committed_ones_are_listed_once(mesh: Backends) -> None:
    committed = [await place(mesh, commit=True) for _ in range(3)]
    for _ in range(PAGE):
        await place(mesh)
    await mesh.expire_and_purge()
    assert (await mesh.rows())["quotes"] == len(committed)
    assert await mesh.clients[1].list_unsettled_quotes(mesh.clock(), "") == ([], "")


async def test_two_edges_that_purge_at_the_same_time_delete_each_order_once(mesh: Backends) -> None:
    for _ in range(20):
        await place(mesh, release=True)
    kept = await place(mesh, commit=True)
    mesh.clock.advance(HOLD + RETENTION + MOMENT)
    await asyncio.gather(*(purge_now(mesh) for _ in range(4)))
    assert (await mesh.rows())["reservations"] == (await mesh.rows())["quotes"] == 1
    assert (await mesh.shop.order(kept)).reservation.id == kept


async def test_an_order_placed_while_its_old_quote_is_purged_is_not_lost(mesh: Backends) -> None:
    """A crash left the quote. A purge has seen that it has no reservation, when its key is used again."""
    key = str(uuid.uuid4())
    lines = [Line("TEA-0001", 1)]
    process = Killed(frozenset({"ReserveStock"}))
    async with mesh.storefront(process) as storefront:
        crashed = asyncio.create_task(storefront.place_order(key, lines, "EUR"))
        await process.wait({"CreateQuote"}, {"ReserveStock"})
        crashed.cancel()
    mesh.clock.advance(HOLD + RETENTION + MOMENT)
    purger = Killed(frozenset({"SettleQuotes"}))
    before = mesh.clock() - RETENTION
    async with open_clients(mesh.addresses, mesh.capture, purger) as clients:
        purging = asyncio.create_task(purge(*clients, before))
        await purger.wait({"BatchGetReservations"}, {"SettleQuotes"})
        placed = await mesh.shop.place_order(key, lines, "EUR")
        purging.cancel()
    orphaned = [order_id(key)]
    await mesh.clients[1].settle_quotes(committed=[], finished=[], orphaned=orphaned, create_time_before=before)
    assert await mesh.shop.order(order_id(key)) == placed


async def test_a_quote_that_a_crash_left_is_purged_although_its_key_is_retried(mesh: Backends) -> None:
    """Each repeat is refused and uses the quote; the next order has the price of its own moment."""
    key, too_many = str(uuid.uuid4()), [Line("TEA-0001", 1_000_000)]
    process = Killed(frozenset({"ReserveStock"}))
    async with mesh.storefront(process) as storefront:
        crashed = asyncio.create_task(storefront.place_order(key, too_many, "EUR"))
        await process.wait({"CreateQuote"}, {"ReserveStock"})
        crashed.cancel()
    for _ in range(3):
        mesh.clock.advance(RETENTION / 2)
        with pytest.raises(FailedPrecondition):
            await mesh.shop.place_order(key, too_many, "EUR")
    await purge_now(mesh)
    assert (await mesh.rows())["quotes"] == 1
    mesh.clock.advance(timedelta(minutes=1) + MOMENT)
    await purge_now(mesh)
    assert set((await mesh.rows()).values()) == {0}


async def test_an_order_committed_by_an_edge_of_the_previous_release_keeps_its_quote(mesh: Backends) -> None:
    """Such an edge commits the reservation and does not confirm the quote."""
    placed = await place(mesh)
    inventory, _ = mesh.clients
    await inventory.commit_reservation(placed, "")
    committed = await mesh.shop.order(placed)
    await mesh.expire_and_purge()
    assert await mesh.shop.order(placed) == committed
    assert (await mesh.rows())["quotes"] == 1


class FailingFirst(grpc.aio.UnaryUnaryClientInterceptor):
    """The first call of a method fails."""

    def __init__(self, method: str) -> None:
        self._method, self.failed = method, False

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Passes on every other call."""
        if not self.failed and details.method.decode().endswith(self._method):
            self.failed = True
            raise Internal("failed on purpose")
        return await continuation(details, request)


async def test_a_batch_that_fails_does_not_stop_the_others_and_keeps_its_reservations(mesh: Backends) -> None:
    for _ in range(PAGE + 1):
        await place(mesh)
    mesh.clock.advance(HOLD + RETENTION + MOMENT)
    while await mesh.stock.sweep():
        pass
    async with open_clients(mesh.addresses, mesh.capture, FailingFirst("SettleQuotes")) as clients:
        with pytest.raises(Internal):
            await purge(*clients, mesh.clock() - RETENTION)
    assert {(await mesh.rows())[table] for table in ("quotes", "reservations")} == {PAGE, PAGE + 1}
    await purge_now(mesh)
    assert set((await mesh.rows()).values()) == {0}


class CountingCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Counts calls, and says when there were enough."""

    def __init__(self, enough: int) -> None:
        self._left, self.reached = enough, asyncio.Event()

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Passes the call on."""
        self._left -= 1
        if self._left <= 0:
            self.reached.set()
        return await continuation(details, request)


async def test_an_outage_is_logged_once_and_the_purge_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    calls = CountingCalls(enough=4)
    with absent_server() as address:
        addresses = {"inventory": address, "pricing": address}
        async with open_clients(addresses, SpanCapture("api_edge"), calls) as clients:
            purger = partial(purge_forever, *clients, retention=RETENTION, interval=0.001, clock=utc_now)
            async with running(purger):
                await calls.reached.wait()
    warnings = [record for record in caplog.records if record.name == "api_edge.purge"]
    assert [record.levelname for record in warnings] == ["WARNING"]


async def test_an_unexpected_error_is_logged_and_does_not_end_the_edge(
    mesh: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    calls, recovered = 0, asyncio.Event()

    def clock() -> datetime:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("on purpose")
        recovered.set()
        return mesh.clock()

    async with running(partial(purge_forever, *mesh.clients, retention=RETENTION, interval=0.001, clock=clock)):
        await recovered.wait()
    assert "the purge of orders failed" in caplog.text
