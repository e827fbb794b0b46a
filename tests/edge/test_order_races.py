"""Orders when calls fail, hang or race: an answered order stays, any other one leaves nothing behind."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from inventory.servicer import InventoryServicer
from meshkit.errors import Cancelled, Internal, ResourceExhausted, ServiceError, Unavailable, Unknown
from pricing.servicer import PricingServicer
from tests.edge.mesh import Mesh, assert_problem, mesh, plentiful_skus, post_order, wire
from tests.inventory.opened import HOLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = {"X-Request-Timeout-Ms": "300"}
FAILURES = [
    Unavailable("away"),
    Internal("broken"),
    Unknown("unclear"),
    Cancelled("stopped"),
    ResourceExhausted("busy"),
]
STATUS = {Unavailable: 503, Internal: 500, Unknown: 500, Cancelled: 499, ResourceExhausted: 429}


async def nothing() -> None:
    """Happens around no call."""


async def for_ever() -> None:
    await asyncio.Event().wait()


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


class Inventory(InventoryServicer):
    """The real one, with something happening before or after its calls."""

    after_reserve = before_undo = before_commit = before_release = staticmethod(nothing)

    async def ReserveStock(self, request: Any, context: Any) -> Any:
        response = await super().ReserveStock(request, context)
        await self.after_reserve()
        return response

    async def UndoReserveStock(self, request: Any, context: Any) -> Any:
        await self.before_undo()
        return await super().UndoReserveStock(request, context)

    async def CommitReservation(self, request: Any, context: Any) -> Any:
        await self.before_commit()
        return await super().CommitReservation(request, context)

    async def ReleaseReservation(self, request: Any, context: Any) -> Any:
        await self.before_release()
        return await super().ReleaseReservation(request, context)


class Pricing(PricingServicer):
    """The real one, with something happening before or after its calls."""

    before_quote = after_quote = before_reading = staticmethod(nothing)

    async def CreateQuote(self, request: Any, context: Any) -> Any:
        await self.before_quote()
        response = await super().CreateQuote(request, context)
        await self.after_quote()
        return response

    async def GetQuote(self, request: Any, context: Any) -> Any:
        await self.before_reading()
        return await super().GetQuote(request, context)


class Held:
    """A call that stays where it is until it is let go."""

    def __init__(self, then: Callable[[], Awaitable[None]] = nothing) -> None:
        self.reached, self._free, self._then = asyncio.Event(), asyncio.Event(), then

    async def __call__(self) -> None:
        if not self.reached.is_set():  # the first call alone
            self.reached.set()
            await self._free.wait()
            await self._then()

    def let_go(self) -> None:
        self._free.set()


@pytest.fixture
def inventory() -> Iterator[type[Inventory]]:
    """The hooks of inventory, which the test may set."""
    yield Inventory
    Inventory.after_reserve = Inventory.before_undo = Inventory.before_commit = Inventory.before_release = hook(nothing)


@pytest.fixture
def pricing() -> Iterator[type[Pricing]]:
    """The hooks of pricing, which the test may set."""
    yield Pricing
    Pricing.before_quote = Pricing.after_quote = Pricing.before_reading = hook(nothing)


def hook(call: Callable[[], Awaitable[None]]) -> Any:
    return staticmethod(call)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("shop")
    async with mesh(folder, inventory_servicer=Inventory, pricing_servicer=Pricing) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def skus(shop: Mesh) -> AsyncIterator[str]:
    return plentiful_skus(shop)


@pytest_asyncio.fixture(loop_scope="module")
async def sku(skus: AsyncIterator[str]) -> str:
    """A product of the test's own."""
    return await anext(skus)


@pytest.fixture
def key() -> str:
    """An idempotency key of the test's own."""
    return str(uuid.uuid4())


async def assert_reserved(shop: Mesh, sku: str, units: int) -> None:
    await shop.spans()  # every call has ended, undos included
    assert (await shop.stock(sku))["reserved"] == units


@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_an_order_whose_quote_fails_is_undone_before_the_answer(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing], error: ServiceError
) -> None:
    pricing.before_quote = hook(raising(error))
    answer = await shop.order((sku, 2), key=key)
    assert_problem(answer, STATUS[type(error)], error.reason)
    await assert_reserved(shop, sku, 0)
    pricing.before_quote = hook(nothing)
    assert (await shop.order((sku, 3), key=key)).status == 201


async def test_an_order_whose_quote_hangs_is_undone(shop: Mesh, sku: str, key: str, pricing: type[Pricing]) -> None:
    pricing.before_quote = hook(for_ever)
    assert_problem(await shop.order((sku, 2), key=key, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 0)
    pricing.before_quote = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).status == 201


async def test_an_order_whose_quote_was_made_but_not_answered_is_undone_and_may_be_repeated(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    pricing.after_quote = hook(for_ever)
    assert_problem(await shop.order((sku, 2), key=key, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 0)
    pricing.after_quote = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).status == 201


@pytest.mark.parametrize("error", FAILURES[:4], ids=repr)
async def test_a_reservation_that_was_made_but_answered_by_an_error_is_undone(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], error: ServiceError
) -> None:
    inventory.after_reserve = hook(raising(error))
    assert_problem(await shop.order((sku, 2), key=key), STATUS[type(error)], error.reason)
    await assert_reserved(shop, sku, 0)
    inventory.after_reserve = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).status == 201


async def test_a_reservation_that_was_made_but_not_answered_is_undone(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory]
) -> None:
    inventory.after_reserve = hook(for_ever)
    assert_problem(await shop.order((sku, 2), key=key, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 0)
    inventory.after_reserve = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).status == 201


@pytest.mark.parametrize("undo", [for_ever, raising(Unavailable("away"))])
async def test_an_order_that_cannot_be_undone_is_answered_all_the_same_and_expires(
    shop: Mesh, sku: str, inventory: type[Inventory], undo: Callable[[], Awaitable[None]]
) -> None:
    inventory.after_reserve, inventory.before_undo = hook(for_ever), hook(undo)
    units = (await shop.stock(sku))["available"]
    assert_problem(await shop.order((sku, units), headers=SHORT), 504, "DEADLINE_EXCEEDED")
    inventory.after_reserve = hook(nothing)
    await assert_reserved(shop, sku, units)
    shop.clock.advance(HOLD)
    assert (await shop.order((sku, units))).status == 201


async def test_an_edge_that_stops_finishes_its_undos(tmp_path: Path, inventory: type[Inventory]) -> None:
    undo = Held()
    inventory.after_reserve, inventory.before_undo = hook(for_ever), hook(undo)
    async with mesh(tmp_path, inventory_servicer=inventory) as shop:
        await shop.order(("TEA-0001", 2), headers=SHORT)
        await undo.reached.wait()
        shop.stop.request()
        undo.let_go()
    async with mesh(tmp_path) as shop:
        assert (await shop.stock("TEA-0001"))["reserved"] == 0


@pytest.mark.parametrize(("verb", "suffix"), [("POST", "/commit"), ("DELETE", "")])
@pytest.mark.parametrize("reading", [for_ever, *map(raising, FAILURES)])
async def test_without_its_quote_an_order_is_neither_committed_nor_released(
    shop: Mesh, sku: str, pricing: type[Pricing], verb: str, suffix: str, reading: Callable[[], Awaitable[None]]
) -> None:
    placed = await shop.order((sku, 2))
    pricing.before_reading = hook(reading)
    answer = await shop.ask(verb, placed.headers["Location"] + suffix, headers=SHORT if reading is for_ever else {})
    assert_problem(answer, 503, "UNAVAILABLE")
    assert "Retry-After" in answer.headers
    await assert_reserved(shop, sku, 2)
    pricing.before_reading = hook(nothing)
    assert (await shop.get(placed.headers["Location"])).body == placed.body


async def test_without_pricing_an_order_cannot_be_read(shop: Mesh, sku: str, pricing: type[Pricing]) -> None:
    placed = await shop.order((sku, 2))
    pricing.before_reading = hook(raising(Unavailable("away")))
    assert_problem(await shop.get(placed.headers["Location"]), 503, "UNAVAILABLE")
    pricing.before_reading = hook(for_ever)
    assert_problem(await shop.get(placed.headers["Location"], headers=SHORT), 504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize(("verb", "suffix", "state"), [("POST", "/commit", "COMMITTED"), ("DELETE", "", "RELEASED")])
async def test_a_commit_or_release_that_was_not_answered_may_be_repeated(
    shop: Mesh, sku: str, inventory: type[Inventory], verb: str, suffix: str, state: str
) -> None:
    placed = await shop.order((sku, 2))
    inventory.before_commit = inventory.before_release = hook(for_ever)
    path = placed.headers["Location"] + suffix
    assert_problem(await shop.ask(verb, path, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    inventory.before_commit = inventory.before_release = hook(nothing)
    assert (await shop.ask(verb, path)).body == placed.body | {"state": state}


async def test_an_answered_order_survives_a_repeat_whose_quote_fails(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    first = await shop.order((sku, 2), key=key)
    pricing.before_quote = hook(raising(Internal("broken")))
    assert_problem(await shop.order((sku, 2), key=key), 500, "INTERNAL")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(first.headers["Location"])).body == first.body
    pricing.before_quote = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).body == first.body


async def test_an_answered_order_survives_a_repeat_whose_reservation_is_of_unknown_outcome(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory]
) -> None:
    first = await shop.order((sku, 2), key=key)
    inventory.after_reserve = hook(for_ever)
    assert_problem(await shop.order((sku, 2), key=key, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(first.headers["Location"])).body == first.body


async def test_an_attempt_that_fails_after_another_was_answered_undoes_nothing(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    pricing.before_quote = hook(quote := Held(raising(Internal("broken"))))
    slow = asyncio.create_task(shop.order((sku, 2), key=key))
    await quote.reached.wait()
    answered = await shop.order((sku, 2), key=key)
    assert answered.status == 201
    quote.let_go()
    assert_problem(await slow, 500, "INTERNAL")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(answered.headers["Location"])).body == answered.body


async def test_an_attempt_that_times_out_on_its_quote_while_another_is_answered_undoes_nothing(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    pricing.before_quote = hook(quote := Held())
    slow = asyncio.create_task(shop.order((sku, 2), key=key, headers=SHORT))
    await quote.reached.wait()
    answered = await shop.order((sku, 2), key=key)
    assert answered.status == 201
    assert_problem(await slow, 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(answered.headers["Location"])).body == answered.body


async def test_an_undo_that_comes_after_another_attempt_was_answered_undoes_nothing(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], pricing: type[Pricing]
) -> None:
    pricing.before_quote, inventory.before_undo = hook(raising(Internal("broken"))), hook(undo := Held())
    slow = asyncio.create_task(shop.order((sku, 2), key=key))
    await undo.reached.wait()
    pricing.before_quote = hook(nothing)
    answered = await shop.order((sku, 2), key=key)
    assert answered.status == 201
    undo.let_go()
    assert_problem(await slow, 500, "INTERNAL")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(answered.headers["Location"])).body == answered.body


async def test_an_undo_that_comes_after_the_order_was_committed_undoes_nothing(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], pricing: type[Pricing]
) -> None:
    pricing.before_quote, inventory.before_undo = hook(raising(Internal("broken"))), hook(undo := Held())
    slow = asyncio.create_task(shop.order((sku, 2), key=key))
    await undo.reached.wait()
    pricing.before_quote = hook(nothing)
    answered = await shop.order((sku, 2), key=key)
    await shop.ask("POST", answered.headers["Location"] + "/commit")
    undo.let_go()
    await slow
    await assert_reserved(shop, sku, 0)
    assert (await shop.get(answered.headers["Location"])).body == answered.body | {"state": "COMMITTED"}


async def test_a_key_used_for_another_currency_while_its_order_is_answered_leaves_the_order_as_it_is(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    pricing.after_quote = hook(quote := Held())
    first = asyncio.create_task(shop.order((sku, 2), key=key))
    await quote.reached.wait()
    while (await shop.stock(sku))["reserved"] != 2:
        await asyncio.sleep(0)
    assert_problem(await shop.order((sku, 2), key=key, currency="USD"), 409, "REQUEST_ID_REUSED")
    quote.let_go()
    answer = await first
    assert (answer.status, answer.body["currency"]) == (201, "EUR")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(answer.headers["Location"])).body == answer.body


async def test_of_two_orders_that_share_a_key_and_each_win_one_half_none_is_placed(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    """The first one reserves, the second one is quoted: neither is whole, and neither leaves units reserved."""
    pricing.before_quote = hook(quote := Held())
    first = asyncio.create_task(shop.order((sku, 2), key=key))
    await quote.reached.wait()
    while (await shop.stock(sku))["reserved"] != 2:
        await asyncio.sleep(0)
    assert_problem(await shop.order((sku, 2), key=key, currency="USD"), 409, "REQUEST_ID_REUSED")
    quote.let_go()
    assert_problem(await first, 409, "REQUEST_ID_REUSED")
    await assert_reserved(shop, sku, 0)
    answer = await shop.order((sku, 2), key=key, currency="USD")
    assert (answer.status, answer.body["currency"]) == (201, "USD")


async def test_halves_of_two_orders_are_no_order(
    shop: Mesh, inventory: type[Inventory], pricing: type[Pricing]
) -> None:
    """The first one leaves its reservation behind, for the undo fails; the second one leaves its quote."""
    pricing.before_quote, inventory.before_undo = hook(raising(Internal("broken"))), hook(raising(Internal("broken")))
    await shop.order(("TEA-0001", 2), key="k")
    pricing.before_quote = hook(nothing)
    refused = await shop.order(("TEA-0001", 3), key="k")
    assert_problem(refused, 409, "REQUEST_ID_REUSED")
    path = f"/v1/orders/{refused.body['metadata']['request_id']}"
    for verb, suffix in (("GET", ""), ("POST", "/commit"), ("DELETE", "")):
        assert_problem(await shop.ask(verb, path + suffix), 404, "UNKNOWN_ORDER")
    assert await shop.stock("TEA-0001") == {"on_hand": 500, "reserved": 2, "available": 498}


async def test_20_orders_of_two_currencies_at_once_under_one_key_are_one_order_or_none(
    shop: Mesh, sku: str, key: str
) -> None:
    currencies = ["EUR", "USD"] * 10
    answers = await asyncio.gather(*(shop.order((sku, 2), key=key, currency=currency) for currency in currencies))
    placed = [answer for answer in answers if answer.status == 201]
    assert {answer.status for answer in answers} <= {201, 409}
    assert len({json.dumps(answer.body) for answer in placed}) <= 1
    await assert_reserved(shop, sku, 2 if placed else 0)
    if placed:
        assert (await shop.get(placed[0].headers["Location"])).body == placed[0].body


async def test_a_client_that_goes_after_it_has_ordered_has_a_whole_order(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], pricing: type[Pricing]
) -> None:
    inventory.after_reserve = hook(reserved := Held())
    pricing.after_quote = hook(quoted := Held())
    async with wire(shop) as connection:
        await connection.send(post_order(sku, Idempotency_Key=key))
        await asyncio.gather(reserved.reached.wait(), quoted.reached.wait())
    reserved.let_go()
    quoted.let_go()
    await assert_reserved(shop, sku, 2)
    answer = await shop.order((sku, 2), key=key)
    assert (answer.status, answer.body["state"]) == (201, "RESERVED")
    await assert_reserved(shop, sku, 2)
    assert (await shop.ask("POST", answer.headers["Location"] + "/commit")).status == 200
