"""Orders over HTTP are placed once, committed or released once, and are always complete."""

from __future__ import annotations

import asyncio
import re
import uuid
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from aiomesh.inventory.v1 import inventory_pb2, inventory_service_pb2, inventory_service_pb2_grpc
from aiomesh.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc
from tests.edge.mesh import Answer, Mesh, assert_problem, mesh, plentiful_skus, post_order, trace_id_of, wire
from tests.inventory.opened import HOLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VERBS = [("GET", ""), ("POST", "/commit"), ("DELETE", "")]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def skus(shop: Mesh) -> AsyncIterator[str]:
    return plentiful_skus(shop)


@pytest_asyncio.fixture(loop_scope="module")
async def sku(skus: AsyncIterator[str]) -> str:
    """A product that no other test uses."""
    return await anext(skus)


@pytest_asyncio.fixture(loop_scope="module")
async def other(skus: AsyncIterator[str]) -> str:
    """Another product that no other test uses."""
    return await anext(skus)


@pytest_asyncio.fixture(loop_scope="module")
async def scarce(shop: Mesh, skus: AsyncIterator[str]) -> str:
    """A product with 7 units that no other test uses."""
    sku = await anext(skus)
    await add_stock(shop, sku, 7 - (await shop.stock(sku))["on_hand"])
    return sku


@pytest.fixture
def key() -> str:
    """A new idempotency key."""
    return str(uuid.uuid4())


@asynccontextmanager
async def inventory_stub(shop: Mesh) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(shop.inventory_address) as channel:
        yield inventory_service_pb2_grpc.InventoryServiceStub(channel)


async def add_stock(shop: Mesh, sku: str, delta: int) -> None:
    async with inventory_stub(shop) as stub:
        request = inventory_service_pb2.AdjustStockRequest(request_id=str(uuid.uuid4()), sku=sku, delta=delta)
        await stub.AdjustStock(request)


async def set_price(shop: Mesh, sku: str, euros: int) -> None:
    async with grpc.aio.insecure_channel(shop.pricing_address) as channel:
        price = {"currency_code": "EUR", "units": euros}
        request = pricing_service_pb2.SetPriceRequest(request_id=str(uuid.uuid4()), sku=sku, list_price=price)
        await pricing_service_pb2_grpc.PricingServiceStub(channel).SetPrice(request)


async def reserve_only(shop: Mesh, sku: str) -> str:
    """Creates the half of an order that inventory keeps. Returns its id."""
    id_ = str(uuid.uuid4())
    async with inventory_stub(shop) as stub:
        await stub.ReserveStock(
            inventory_service_pb2.ReserveStockRequest(
                request_id=id_,
                attempt_id=str(uuid.uuid4()),
                lines=[inventory_pb2.ReservationLine(sku=sku, quantity=1)],
                fingerprint="f",
            )
        )
    return id_


async def quote_only(shop: Mesh, sku: str) -> str:
    """Creates the half of an order that pricing keeps. Returns its id."""
    id_ = str(uuid.uuid4())
    async with grpc.aio.insecure_channel(shop.pricing_address) as channel:
        stub: Any = pricing_service_pb2_grpc.PricingServiceStub(channel)
        await stub.CreateQuote(
            pricing_service_pb2.CreateQuoteRequest(
                request_id=id_,
                lines=[pricing_service_pb2.PriceLine(sku=sku, quantity=1)],
                currency_code="EUR",
                fingerprint="f",
            )
        )
    return id_


async def place_order(shop: Mesh, sku: str, **order: Any) -> tuple[str, Answer]:
    """Orders two units. Returns the path of the order and the response."""
    answer = await shop.order((sku, 2), **order)
    assert answer.status == 201, answer.text
    return answer.headers["Location"], answer


async def test_an_order_reserves_units_and_freezes_prices(shop: Mesh, sku: str, other: str, key: str) -> None:
    price = (await shop.get(f"/v1/products/{sku}?quantity=2")).body["price"]
    answer = await shop.order((sku, 2), (other, 1), key=key)
    order = answer.body
    assert answer.status == 201
    assert answer.headers["Location"] == f"/v1/orders/{order['id']}"
    assert answer.headers["Idempotency-Key"] == key
    assert order.keys() == {"id", "state", "currency", "lines", "total", "expire_time"}
    assert str(uuid.UUID(order["id"])) == order["id"]
    assert (order["state"], order["currency"]) == ("RESERVED", "EUR")
    assert order["expire_time"] == (shop.clock.now + HOLD).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert order["lines"][0] == {
        "sku": sku, "quantity": 2, "unit_price": price["unit_price"], "total": price["total"],
    }  # fmt: skip
    assert [line["sku"] for line in order["lines"]] == [sku, other]
    assert Decimal(order["total"]) == sum(Decimal(line["total"]) for line in order["lines"])
    assert (await shop.stock(sku))["reserved"] == 2
    assert (await shop.get(answer.headers["Location"])).body == order


@pytest.mark.parametrize(("currency", "digits"), [("JPY", 0), ("EUR", 2), ("KWD", 3)])
async def test_the_amounts_of_an_order_have_the_digits_of_its_currency(
    shop: Mesh, sku: str, currency: str, digits: int
) -> None:
    _, answer = await place_order(shop, sku, currency=currency)
    (line,) = answer.body["lines"]
    for amount in (line["unit_price"], line["total"], answer.body["total"]):
        assert Decimal(amount).as_tuple().exponent == -digits
    assert answer.body["currency"] == currency


async def test_an_order_is_in_eur_by_default(shop: Mesh, sku: str) -> None:
    body = {"lines": [{"sku": sku, "quantity": 1}]}
    assert (await shop.ask("POST", "/v1/orders", json=body)).body["currency"] == "EUR"


async def test_repeated_posts_of_one_key_are_one_order(shop: Mesh, sku: str, key: str) -> None:
    answers = [await shop.order((sku, 2), key=key) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 201, 201]
    assert answers[0].body == answers[1].body == answers[2].body
    assert (await shop.stock(sku))["reserved"] == 2


async def test_50_concurrent_posts_of_one_key_are_one_order(shop: Mesh, sku: str, key: str) -> None:
    answers = await asyncio.gather(*(shop.order((sku, 2), key=key) for _ in range(50)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["id"] for answer in answers}) == 1
    assert (await shop.stock(sku))["reserved"] == 2


async def test_a_generated_key_is_returned_and_identifies_its_order(shop: Mesh, sku: str) -> None:
    first, second = await shop.order((sku, 1)), await shop.order((sku, 1))
    assert first.body["id"] != second.body["id"]
    assert re.fullmatch("[0-9a-f]{32}", first.headers["Idempotency-Key"]), "128 random bits"
    again = await shop.order((sku, 1), key=first.headers["Idempotency-Key"])
    assert again.body == first.body


@pytest.mark.parametrize(
    ("lines", "currency"),
    [
        ({0: 2, 1: 1}, "USD"),
        ({0: 3, 1: 1}, "EUR"),
        ({2: 2, 1: 1}, "EUR"),
        ({0: 2}, "EUR"),
        ({1: 1, 0: 2}, "EUR"),
    ],
)
async def test_a_known_key_with_a_different_order_is_409_and_changes_nothing(
    shop: Mesh, skus: AsyncIterator[str], key: str, lines: dict[int, int], currency: str
) -> None:
    three = [await anext(skus) for _ in range(3)]
    first = await shop.order((three[0], 2), (three[1], 1), key=key)
    changed = [(three[number], quantity) for number, quantity in lines.items()]
    refused = await shop.order(*changed, key=key, currency=currency)
    assert_problem(refused, 409, "REQUEST_ID_REUSED")
    assert "use a new key" in refused.body["detail"]
    assert first.headers["Location"].rpartition("/")[2] not in refused.text + str(refused.headers)
    assert (await shop.get(first.headers["Location"])).body == first.body
    assert [(await shop.stock(sku))["reserved"] for sku in three] == [2, 1, 0]


async def test_an_order_beyond_the_available_units_is_409_and_reserves_nothing(
    shop: Mesh, sku: str, scarce: str
) -> None:
    answer = await shop.order((sku, 2), (scarce, 8))
    assert_problem(answer, 409, "INSUFFICIENT_STOCK")
    assert answer.body["metadata"] == {"sku": scarce, "requested": "8", "available": "7"}
    assert (await shop.stock(sku))["reserved"] == 0
    assert (await shop.stock(scarce))["reserved"] == 0


async def test_a_rejected_order_may_be_retried_with_its_key(shop: Mesh, scarce: str, key: str) -> None:
    assert_problem(await shop.order((scarce, 8), key=key), 409, "INSUFFICIENT_STOCK")
    await add_stock(shop, scarce, 1)
    answer = await shop.order((scarce, 8), key=key)
    assert (answer.status, answer.body["state"]) == (201, "RESERVED")
    assert await shop.stock(scarce) == {"on_hand": 8, "reserved": 8, "available": 0}


async def test_a_refused_order_frees_its_key_for_another_order(shop: Mesh, sku: str, scarce: str, key: str) -> None:
    assert_problem(await shop.order((scarce, 8), key=key), 409, "INSUFFICIENT_STOCK")
    answer = await shop.order((scarce, 7), (sku, 1), key=key, currency="USD")
    assert (answer.status, answer.body["currency"]) == (201, "USD")


async def test_a_refused_order_is_placed_later_at_the_price_of_that_moment(shop: Mesh, scarce: str, key: str) -> None:
    assert_problem(await shop.order((scarce, 8), key=key), 409, "INSUFFICIENT_STOCK")
    await add_stock(shop, scarce, 1)
    await set_price(shop, scarce, 77)
    current = (await shop.get(f"/v1/products/{scarce}?quantity=8")).body["price"]["unit_price"]
    answer = await shop.order((scarce, 8), key=key)
    assert (answer.status, answer.body["lines"][0]["unit_price"]) == (201, current)


async def test_an_order_of_a_product_without_a_price_is_404_and_reserves_nothing(
    shop: Mesh, sku: str, key: str
) -> None:
    answer = await shop.order(("GFT-0010", 1), (sku, 1), key=key)
    assert_problem(answer, 404, "UNKNOWN_SKU")
    assert answer.body["domain"] == "pricing.aiomesh"
    assert (await shop.stock("GFT-0010"))["reserved"] == 0
    assert (await shop.stock(sku))["reserved"] == 0
    assert (await shop.order((sku, 1), key=key)).status == 201


async def test_if_both_services_reject_an_order_the_error_of_inventory_is_returned(shop: Mesh) -> None:
    answer = await shop.order(("NO-1", 1))
    assert_problem(answer, 404, "UNKNOWN_SKU")
    assert answer.body["domain"] == "inventory.aiomesh"


async def test_a_committed_order_removes_its_units_once(shop: Mesh, scarce: str) -> None:
    path, answer = await place_order(shop, scarce)
    commits = [await shop.ask("POST", f"{path}/commit") for _ in range(2)]
    assert [commit.status for commit in commits] == [200, 200]
    assert commits[0].body == commits[1].body == answer.body | {"state": "COMMITTED"}
    assert (await shop.get(path)).body == commits[0].body
    assert await shop.stock(scarce) == {"on_hand": 5, "reserved": 0, "available": 5}


async def test_a_released_order_returns_its_units_once(shop: Mesh, scarce: str) -> None:
    path, answer = await place_order(shop, scarce)
    releases = [await shop.ask("DELETE", path) for _ in range(2)]
    assert [release.status for release in releases] == [200, 200]
    assert releases[0].body == releases[1].body == answer.body | {"state": "RELEASED"}
    assert (await shop.get(path)).body == releases[0].body
    assert await shop.stock(scarce) == {"on_hand": 7, "reserved": 0, "available": 7}


async def test_a_committed_order_cannot_be_released(shop: Mesh, sku: str) -> None:
    path, _ = await place_order(shop, sku)
    await shop.ask("POST", f"{path}/commit")
    assert_problem(await shop.ask("DELETE", path), 409, "RESERVATION_COMMITTED")
    assert (await shop.get(path)).body["state"] == "COMMITTED"


async def test_a_released_order_cannot_be_committed(shop: Mesh, sku: str) -> None:
    path, _ = await place_order(shop, sku)
    await shop.ask("DELETE", path)
    assert_problem(await shop.ask("POST", f"{path}/commit"), 409, "RESERVATION_RELEASED")
    assert (await shop.stock(sku))["reserved"] == 0


async def test_an_expired_order_can_be_neither_committed_nor_released(shop: Mesh, sku: str) -> None:
    path, answer = await place_order(shop, sku)
    shop.clock.advance(HOLD)
    assert (await shop.get(path)).body == answer.body | {"state": "EXPIRED"}
    assert_problem(await shop.ask("POST", f"{path}/commit"), 409, "RESERVATION_EXPIRED")
    assert_problem(await shop.ask("DELETE", path), 409, "RESERVATION_EXPIRED")


async def test_the_units_of_an_expired_order_are_available(shop: Mesh, scarce: str) -> None:
    assert (await shop.order((scarce, 7))).status == 201
    assert_problem(await shop.order((scarce, 7)), 409, "INSUFFICIENT_STOCK")
    shop.clock.advance(HOLD)
    assert (await shop.order((scarce, 7))).status == 201


@pytest.mark.parametrize(("verb", "suffix", "state"), [("POST", "/commit", "COMMITTED"), ("DELETE", "", "RELEASED")])
async def test_a_repeated_post_returns_the_current_state_of_the_order(
    shop: Mesh, sku: str, key: str, verb: str, suffix: str, state: str
) -> None:
    path, answer = await place_order(shop, sku, key=key)
    await shop.ask(verb, path + suffix)
    _, again = await place_order(shop, sku, key=key)
    assert again.body == answer.body | {"state": state}


async def test_a_repeated_post_of_an_expired_order_returns_it_as_expired(shop: Mesh, sku: str, key: str) -> None:
    _, answer = await place_order(shop, sku, key=key)
    shop.clock.advance(HOLD)
    _, again = await place_order(shop, sku, key=key)
    assert again.body == answer.body | {"state": "EXPIRED"}


async def test_an_order_is_found_by_its_id_in_capitals(shop: Mesh, sku: str) -> None:
    _, answer = await place_order(shop, sku)
    assert (await shop.get(f"/v1/orders/{answer.body['id'].upper()}")).body == answer.body


@pytest.mark.parametrize(("verb", "suffix"), VERBS)
async def test_an_id_in_another_notation_is_an_unknown_order(shop: Mesh, sku: str, verb: str, suffix: str) -> None:
    _, answer = await place_order(shop, sku)
    id_ = answer.body["id"]
    others = [
        id_.replace("-", ""),
        f"%7B{id_}%7D",
        f"urn:uuid:{id_}",
        f"%20{id_}",
        f"{id_[:-1]}%D9%A1",
        str(uuid.uuid4()),
    ]
    for wrong in others:
        assert_problem(await shop.ask(verb, f"/v1/orders/{wrong}{suffix}"), 404, "UNKNOWN_ORDER")
    assert (await shop.stock(sku))["reserved"] == 2


@pytest.mark.parametrize(("verb", "suffix"), VERBS)
async def test_half_an_order_is_an_unknown_order(shop: Mesh, sku: str, verb: str, suffix: str) -> None:
    for half in (await reserve_only(shop, sku), await quote_only(shop, sku)):
        assert_problem(await shop.ask(verb, f"/v1/orders/{half}{suffix}"), 404, "UNKNOWN_ORDER")
    assert (await shop.stock(sku))["reserved"] == 1


async def test_a_client_that_disconnects_in_the_middle_of_its_order_reserves_nothing(shop: Mesh, sku: str) -> None:
    await shop.open_spans.until_ended()
    async with wire(shop) as connection:
        await connection.send(post_order(sku)[:-10])
        while not shop.open_spans.spans:
            await asyncio.sleep(0)
        (request,) = shop.open_spans.spans
    assert [span.name for span in await shop.spans(trace_id_of(request))] == ["POST /v1/orders"]
    assert (await shop.stock(sku))["reserved"] == 0
