"""Orders whose calls fail, hang or race: an order that was returned stays, and any other one leaves nothing."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from api_edge.rules import order_id
from inventory.servicer import InventoryServicer
from meshkit.errors import Cancelled, Internal, ResourceExhausted, ServiceError, Unavailable, Unknown
from pricing.servicer import PricingServicer
from tests.edge.mesh import Mesh, assert_problem, mesh, plentiful_skus, post_order, wire
from tests.inventory.opened import HOLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESERVE_STOCK = "aiomesh.inventory.v1.InventoryService/ReserveStock"
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
    """The hook that does nothing."""


async def for_ever() -> None:
    await asyncio.Event().wait()


def fail_with(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


class Inventory(InventoryServicer):
    """The real servicer, with hooks before or after its calls."""

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
    """The real servicer, with hooks before or after its calls."""

    before_quote = after_quote = before_get_quote = before_undo = staticmethod(nothing)

    async def CreateQuote(self, request: Any, context: Any) -> Any:
        await self.before_quote()
        response = await super().CreateQuote(request, context)
        await self.after_quote()
        return response

    async def UndoCreateQuote(self, request: Any, context: Any) -> Any:
        await self.before_undo()
        return await super().UndoCreateQuote(request, context)

    async def ConfirmQuote(self, request: Any, context: Any) -> Any:
        await self.before_get_quote()
        return await super().ConfirmQuote(request, context)

    async def GetQuote(self, request: Any, context: Any) -> Any:
        await self.before_get_quote()
        return await super().GetQuote(request, context)


class Pause:
    """A hook that pauses its first call until `resume`, and then awaits another hook."""

    def __init__(self, then: Callable[[], Awaitable[None]] = nothing) -> None:
        self.reached, self._free, self._then = asyncio.Event(), asyncio.Event(), then

    async def __call__(self) -> None:
        if not self.reached.is_set():  # the first call
            self.reached.set()
            await self._free.wait()
            await self._then()

    def resume(self) -> None:
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
    Pricing.before_quote = Pricing.after_quote = Pricing.before_get_quote = Pricing.before_undo = hook(nothing)


def hook(call: Callable[[], Awaitable[None]]) -> Any:
    return staticmethod(call)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("shop")
    async with mesh(folder, inventory_servicer=Inventory, pricing_servicer=Pricing) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def skus(shop: Mesh) -> AsyncIterator[str]:
    return plentiful_skus(shop)


@pytest_asyncio.fixture(loop_scope="module")
async def sku(skus: AsyncIterator[str]) -> str:
    """A product that no other test uses."""
    return await anext(skus)


@pytest.fixture
def key() -> str:
    """A new idempotency key."""
    return str(uuid.uuid4())


async def assert_reserved(shop: Mesh, sku: str, units: int) -> None:
    await shop.spans()  # waits for the end of every call, including undos
    assert (await shop.stock(sku))["reserved"] == units


@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_an_order_whose_quote_fails_is_undone_before_the_response(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing], error: ServiceError
) -> None:
    pricing.before_quote = hook(fail_with(error))
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


async def test_an_order_whose_quote_is_stored_without_a_response_is_undone_and_may_be_retried(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    pricing.after_quote = hook(for_ever)
    assert_problem(await shop.order((sku, 2), key=key, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 0)
    pricing.after_quote = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).status == 201


@pytest.mark.parametrize("error", FAILURES[:4], ids=repr)
async def test_a_reservation_that_is_stored_but_reported_as_an_error_is_undone(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], error: ServiceError
) -> None:
    inventory.after_reserve = hook(fail_with(error))
    assert_problem(await shop.order((sku, 2), key=key), STATUS[type(error)], error.reason)
    await assert_reserved(shop, sku, 0)
    inventory.after_reserve = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).status == 201


async def test_a_reservation_that_is_stored_without_a_response_is_undone(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory]
) -> None:
    inventory.after_reserve = hook(for_ever)
    assert_problem(await shop.order((sku, 2), key=key, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 0)
    inventory.after_reserve = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).status == 201


@pytest.mark.parametrize("undo", [for_ever, fail_with(Unavailable("away"))])
async def test_an_order_that_cannot_be_undone_returns_its_error_and_expires(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], undo: Callable[[], Awaitable[None]]
) -> None:
    stored = asyncio.Event()

    async def no_response() -> None:
        stored.set()
        await for_ever()

    inventory.after_reserve, inventory.before_undo = hook(no_response), hook(undo)
    units = (await shop.stock(sku))["available"]
    while not stored.is_set():  # on a busy machine the budget may end before
        assert_problem(await shop.order((sku, units), key=key, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    inventory.after_reserve = hook(nothing)
    await assert_reserved(shop, sku, units)
    shop.clock.advance(HOLD)
    assert (await shop.order((sku, units))).status == 201


async def test_a_stopping_edge_finishes_its_undos(tmp_path: Path, inventory: type[Inventory]) -> None:
    undo = Pause()
    inventory.after_reserve, inventory.before_undo = hook(for_ever), hook(undo)
    async with mesh(tmp_path, inventory_servicer=inventory) as shop:
        await shop.order(("TEA-0001", 2), headers=SHORT)
        await undo.reached.wait()
        shop.stop.request()
        undo.resume()
    async with mesh(tmp_path) as shop:
        assert (await shop.stock("TEA-0001"))["reserved"] == 0


@pytest.mark.parametrize(("verb", "suffix"), [("POST", "/commit"), ("DELETE", "")])
@pytest.mark.parametrize("failure", [for_ever, *map(fail_with, FAILURES)])
async def test_an_order_whose_quote_cannot_be_read_is_neither_committed_nor_released(
    shop: Mesh, sku: str, pricing: type[Pricing], verb: str, suffix: str, failure: Callable[[], Awaitable[None]]
) -> None:
    order = await shop.order((sku, 2))
    pricing.before_get_quote = hook(failure)
    answer = await shop.ask(verb, order.headers["Location"] + suffix, headers=SHORT if failure is for_ever else {})
    assert_problem(answer, 503, "UNAVAILABLE")
    assert "Retry-After" in answer.headers
    await assert_reserved(shop, sku, 2)
    pricing.before_get_quote = hook(nothing)
    assert (await shop.get(order.headers["Location"])).body == order.body


async def test_an_order_cannot_be_read_without_pricing(shop: Mesh, sku: str, pricing: type[Pricing]) -> None:
    order = await shop.order((sku, 2))
    pricing.before_get_quote = hook(fail_with(Unavailable("away")))
    assert_problem(await shop.get(order.headers["Location"]), 503, "UNAVAILABLE")
    pricing.before_get_quote = hook(for_ever)
    assert_problem(await shop.get(order.headers["Location"], headers=SHORT), 504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize(("verb", "suffix", "state"), [("POST", "/commit", "COMMITTED"), ("DELETE", "", "RELEASED")])
async def test_a_commit_or_release_without_a_response_may_be_retried(
    shop: Mesh, sku: str, inventory: type[Inventory], verb: str, suffix: str, state: str
) -> None:
    order = await shop.order((sku, 2))
    inventory.before_commit = inventory.before_release = hook(for_ever)
    path = order.headers["Location"] + suffix
    assert_problem(await shop.ask(verb, path, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    inventory.before_commit = inventory.before_release = hook(nothing)
    assert (await shop.ask(verb, path)).body == order.body | {"state": state}


async def test_a_returned_order_survives_a_repeat_whose_quote_fails(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    first = await shop.order((sku, 2), key=key)
    pricing.before_quote = hook(fail_with(Internal("broken")))
    assert_problem(await shop.order((sku, 2), key=key), 500, "INTERNAL")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(first.headers["Location"])).body == first.body
    pricing.before_quote = hook(nothing)
    assert (await shop.order((sku, 2), key=key)).body == first.body


async def test_a_returned_order_survives_a_repeat_whose_reservation_has_an_unknown_outcome(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory]
) -> None:
    first = await shop.order((sku, 2), key=key)
    inventory.after_reserve = hook(for_ever)
    assert_problem(await shop.order((sku, 2), key=key, headers=SHORT), 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(first.headers["Location"])).body == first.body


async def test_an_attempt_that_fails_after_another_one_succeeded_undoes_nothing(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    pricing.before_quote = hook(quote := Pause(fail_with(Internal("broken"))))
    slow = asyncio.create_task(shop.order((sku, 2), key=key))
    await quote.reached.wait()
    success = await shop.order((sku, 2), key=key)
    assert success.status == 201
    quote.resume()
    assert_problem(await slow, 500, "INTERNAL")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(success.headers["Location"])).body == success.body


async def test_an_attempt_whose_quote_times_out_while_another_one_succeeds_undoes_nothing(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    pricing.before_quote = hook(quote := Pause())
    slow = asyncio.create_task(shop.order((sku, 2), key=key, headers=SHORT))
    await quote.reached.wait()
    success = await shop.order((sku, 2), key=key)
    assert success.status == 201
    assert_problem(await slow, 504, "DEADLINE_EXCEEDED")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(success.headers["Location"])).body == success.body


async def test_an_undo_that_arrives_after_another_attempt_succeeded_undoes_nothing(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], pricing: type[Pricing]
) -> None:
    pricing.before_quote, inventory.before_undo = hook(fail_with(Internal("broken"))), hook(undo := Pause())
    slow = asyncio.create_task(shop.order((sku, 2), key=key))
    await undo.reached.wait()
    pricing.before_quote = hook(nothing)
    success = await shop.order((sku, 2), key=key)
    assert success.status == 201
    undo.resume()
    assert_problem(await slow, 500, "INTERNAL")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(success.headers["Location"])).body == success.body


async def test_an_undo_that_arrives_after_the_commit_undoes_nothing(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], pricing: type[Pricing]
) -> None:
    pricing.before_quote, inventory.before_undo = hook(fail_with(Internal("broken"))), hook(undo := Pause())
    slow = asyncio.create_task(shop.order((sku, 2), key=key))
    await undo.reached.wait()
    pricing.before_quote = hook(nothing)
    success = await shop.order((sku, 2), key=key)
    await shop.ask("POST", success.headers["Location"] + "/commit")
    undo.resume()
    await slow
    await assert_reserved(shop, sku, 0)
    assert (await shop.get(success.headers["Location"])).body == success.body | {"state": "COMMITTED"}


async def test_a_key_reused_for_another_currency_during_its_order_does_not_change_the_order(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    pricing.after_quote = hook(quote := Pause())
    first = asyncio.create_task(shop.order((sku, 2), key=key))
    await quote.reached.wait()
    while (await shop.stock(sku))["reserved"] != 2:
        await asyncio.sleep(0)
    assert_problem(await shop.order((sku, 2), key=key, currency="USD"), 409, "REQUEST_ID_REUSED")
    quote.resume()
    answer = await first
    assert (answer.status, answer.body["currency"]) == (201, "EUR")
    await assert_reserved(shop, sku, 2)
    assert (await shop.get(answer.headers["Location"])).body == answer.body


async def test_two_orders_with_one_key_that_get_one_half_each_are_both_rejected(
    shop: Mesh, sku: str, key: str, pricing: type[Pricing]
) -> None:
    """The first order gets the reservation and the second one the quote. Neither leaves anything."""
    reserved = len(shop.inventory.spans(RESERVE_STOCK))
    pricing.before_quote = hook(first_quote := Pause())
    first = asyncio.create_task(shop.order((sku, 2), key=key))
    await first_quote.reached.wait()
    while len(shop.inventory.spans(RESERVE_STOCK)) == reserved:
        await asyncio.sleep(0)
    pricing.after_quote = hook(second_quote := Pause())
    second = asyncio.create_task(shop.order((sku, 2), key=key, currency="USD"))
    await second_quote.reached.wait()
    while len(shop.inventory.spans(RESERVE_STOCK)) == reserved + 1:
        await asyncio.sleep(0)
    first_quote.resume()
    assert_problem(await first, 409, "REQUEST_ID_REUSED")
    second_quote.resume()
    assert_problem(await second, 409, "REQUEST_ID_REUSED")
    await assert_reserved(shop, sku, 0)
    answer = await shop.order((sku, 2), key=key, currency="USD")
    assert (answer.status, answer.body["currency"]) == (201, "USD")


async def test_the_halves_of_two_orders_do_not_make_an_order(
    shop: Mesh, inventory: type[Inventory], pricing: type[Pricing]
) -> None:
    """The first order leaves its reservation, because its undo fails, and the second one leaves its quote."""
    pricing.before_quote = inventory.before_undo = pricing.before_undo = hook(fail_with(Internal("broken")))
    await shop.order(("TEA-0001", 2), key="k")
    pricing.before_quote = hook(nothing)
    refused = await shop.order(("TEA-0001", 3), key="k")
    assert_problem(refused, 409, "REQUEST_ID_REUSED")
    path = f"/v1/orders/{order_id('k')}"
    for verb, suffix in (("GET", ""), ("POST", "/commit"), ("DELETE", "")):
        assert_problem(await shop.ask(verb, path + suffix), 404, "UNKNOWN_ORDER")
    assert await shop.stock("TEA-0001") == {"on_hand": 500, "reserved": 2, "available": 498}


async def test_20_concurrent_orders_of_two_currencies_with_one_key_place_at_most_one(
    shop: Mesh, sku: str, key: str
) -> None:
    currencies = ["EUR", "USD"] * 10
    answers = await asyncio.gather(*(shop.order((sku, 2), key=key, currency=currency) for currency in currencies))
    orders = [answer for answer in answers if answer.status == 201]
    assert {answer.status for answer in answers} <= {201, 409}
    assert len({json.dumps(answer.body) for answer in orders}) <= 1
    await assert_reserved(shop, sku, 2 if orders else 0)
    if orders:
        assert (await shop.get(orders[0].headers["Location"])).body == orders[0].body


async def test_an_order_is_complete_if_its_client_disconnects_after_both_halves_are_stored(
    shop: Mesh, sku: str, key: str, inventory: type[Inventory], pricing: type[Pricing]
) -> None:
    inventory.after_reserve = hook(reservation := Pause())
    pricing.after_quote = hook(quote := Pause())
    async with wire(shop) as connection:
        await connection.send(post_order(sku, Idempotency_Key=key))
        await asyncio.gather(reservation.reached.wait(), quote.reached.wait())
    reservation.resume()
    quote.resume()
    await assert_reserved(shop, sku, 2)
    answer = await shop.order((sku, 2), key=key)
    assert (answer.status, answer.body["state"]) == (201, "RESERVED")
    await assert_reserved(shop, sku, 2)
    assert (await shop.ask("POST", answer.headers["Location"] + "/commit")).status == 200
