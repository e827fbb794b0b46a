"""Backends whose responses parse and make no sense, and one whose responses do not parse: each is their INTERNAL."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from aiomesh.inventory.v1 import inventory_pb2
from api_edge.clients import PRICING_API
from inventory.servicer import InventoryServicer
from meshkit.testing import start_server
from pricing.servicer import PricingServicer
from tests.edge.mesh import Mesh, assert_problem, mesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.asyncio(loop_scope="module")

Spoil = tuple[str, str, "Callable[[Any], object]"]
SPOILED: dict[str, Callable[[Any], object]] = {}
"""What changes the responses of a method, by the method's name."""

SKU, OTHER = "TEA-0001", "TEA-0002"
RESERVED = inventory_pb2.Reservation.STATE_RESERVED


def spoiling(servicer: type[Any]) -> type[Any]:
    """The servicer, with responses that SPOILED changes."""

    def method(name: str) -> Callable[..., Awaitable[Any]]:
        async def respond(self: Any, request: Any, context: Any) -> Any:
            response = await getattr(servicer, name)(self, request, context)
            SPOILED.get(name, lambda _: None)(response)
            return response

        return respond

    methods = [name for name in vars(servicer) if name[0].isupper()]
    return type(servicer.__name__, (servicer,), {name: method(name) for name in methods})


def set_to(path: str, value: object) -> Callable[[Any], None]:
    """Sets one field, such as `price.total.nanos`; a number in the path is an index."""

    def change(response: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            response = response[int(name)] if name.isdigit() else getattr(response, name)
        setattr(response, last, value)

    return change


def without(path: str) -> Callable[[Any], None]:
    """Removes one field."""

    def change(response: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            response = response[int(name)] if name.isdigit() else getattr(response, name)
        response.ClearField(last)

    return change


def repeat(field: str) -> Callable[[Any], None]:
    """Repeats the first entry of a repeated field."""
    return lambda response: getattr(response, field).append(getattr(response, field)[0])


def swap(field: str) -> Callable[[Any], None]:
    """Reverses a repeated field."""

    def change(response: Any) -> None:
        entries = list(getattr(response, field))[::-1]
        response.ClearField(field)
        getattr(response, field).extend(entries)

    return change


def empty(response: Any) -> None:
    response.Clear()


def amounts(prefix: str) -> list[tuple[str, Callable[[Any], object]]]:
    """What an amount cannot be."""
    return [
        ("no amount", without(prefix)),
        ("another currency", set_to(f"{prefix}.currency_code", "XXX")),
        ("no currency", set_to(f"{prefix}.currency_code", "€")),
        ("too many nanos", set_to(f"{prefix}.nanos", 2_000_000_000)),
        ("negative nanos", set_to(f"{prefix}.nanos", -10_000_000)),
        ("a negative amount", set_to(f"{prefix}.units", -5)),
        ("an amount that does not add up", set_to(f"{prefix}.units", 10**15)),
        ("digits that the currency does not have", set_to(f"{prefix}.nanos", 1)),
    ]


PRICE: list[tuple[str, Callable[[Any], object]]] = [
    ("empty", empty),
    ("another SKU", set_to("price.sku", OTHER)),
    ("another quantity", set_to("price.quantity", 7)),
    ("too many digits", set_to("price.fraction_digits", 100)),
    ("negative digits", set_to("price.fraction_digits", -1)),
    *amounts("price.unit_price"),
    *amounts("price.total"),
]

PRICES: list[tuple[str, Callable[[Any], object]]] = [
    ("empty", empty),
    ("repeated", repeat("prices")),
    ("swapped", swap("prices")),
    ("another SKU", set_to("prices.0.sku", "TEA-0099")),
    ("misses what was not requested", lambda response: response.missing_skus.append("X")),
    ("both known and missing", lambda response: response.missing_skus.append(SKU)),
    ("another quantity", set_to("prices.0.quantity", 7)),
    *amounts("prices.0.total"),
]

STOCK: list[tuple[str, Callable[[Any], object]]] = [
    ("empty", empty),
    ("another SKU", set_to("stock.sku", OTHER)),
    ("negative", set_to("stock.available", -1)),
    ("does not add up", set_to("stock.on_hand", 10**6)),
]

STOCKS: list[tuple[str, Callable[[Any], object]]] = [
    ("empty", empty),
    ("repeated", repeat("stocks")),
    ("swapped", swap("stocks")),
    ("another SKU", set_to("stocks.0.sku", "TEA-0099")),
    ("misses what was not requested", lambda response: response.missing_skus.append("X")),
    ("negative", set_to("stocks.0.available", -1)),
]

PAGE: list[tuple[str, Callable[[Any], object]]] = [
    ("repeated", repeat("stocks")),
    ("longer than requested", lambda response: response.stocks.add(sku="TEA-0099")),
    ("no SKU", without("stocks.0.sku")),
    ("a SKU that is none", set_to("stocks.0.sku", "x" * 65)),
]

RESERVATION: list[tuple[str, Callable[[Any], object]]] = [
    ("empty", empty),
    ("no id", without("reservation.reservation_id")),
    ("another id", set_to("reservation.reservation_id", str(uuid.uuid4()))),
    ("no state", without("reservation.state")),
    ("an unknown state", set_to("reservation.state", 99)),
    ("no time", without("reservation.expire_time")),
    ("a time after all", set_to("reservation.expire_time.seconds", 2**60)),
    ("a time before all", set_to("reservation.expire_time.seconds", -(2**60))),
    ("nanos that are none", set_to("reservation.expire_time.nanos", -1)),
]

NEW_RESERVATION = [
    *RESERVATION,
    ("no lines", without("reservation.lines")),
    ("another quantity", set_to("reservation.lines.0.quantity", 7)),
    ("another fingerprint", set_to("reservation.fingerprint", "x")),
]

ENDED = [*RESERVATION, ("not ended", set_to("reservation.state", RESERVED))]

QUOTE: list[tuple[str, Callable[[Any], object]]] = [
    ("empty", empty),
    ("another id", set_to("quote.quote_id", str(uuid.uuid4()))),
    ("no currency", set_to("quote.currency_code", "€")),
    ("no lines", without("quote.lines")),
    ("a line of nothing", without("quote.lines.0.quantity")),
    ("negative digits", set_to("quote.fraction_digits", -1)),
    *amounts("quote.total"),
    *amounts("quote.lines.0.unit_price"),
]

NEW_QUOTE = [
    *QUOTE,
    ("another quantity", set_to("quote.lines.0.quantity", 7)),
    ("a repeated line", lambda response: response.quote.lines.append(response.quote.lines[0])),
    ("another currency", set_to("quote.currency_code", "USD")),
    ("another fingerprint", set_to("quote.fingerprint", "x")),
]


def cases(**tables: list[tuple[str, Callable[[Any], object]]]) -> list[Any]:
    """Each method with each way to spoil its responses."""
    return [
        pytest.param(method, change, id=f"{method}-{name.replace(' ', '_')}")
        for method, table in tables.items()
        for name, change in table
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("wrong")
    async with mesh(
        folder, inventory_servicer=spoiling(InventoryServicer), pricing_servicer=spoiling(PricingServicer)
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_spoiled() -> None:
    SPOILED.clear()


READS = {
    "GetPrice": f"/v1/products/{SKU}?",
    "BatchGetPrices": f"/v1/products?sku={SKU}&sku={OTHER}&",
    "GetStock": f"/v1/products/{SKU}?",
    "BatchGetStock": f"/v1/products?sku={SKU}&sku={OTHER}&",
    "ListStock": "/v1/products?page_size=2&",
}


@pytest.mark.parametrize(("method", "change"), cases(GetPrice=PRICE, BatchGetPrices=PRICES))
async def test_a_price_that_makes_no_sense_degrades_the_product(
    shop: Mesh, method: str, change: Callable[[Any], object]
) -> None:
    SPOILED[method] = change
    answer = await shop.get(READS[method])
    assert answer.status == 200, answer.text
    for product in answer.body.get("products", [answer.body]):
        assert product["price"] is None
        assert product["problems"] == [{"service": "pricing", "code": "INTERNAL", "reason": "INTERNAL"}]
    strict = await shop.get(f"{READS[method]}strict=true")
    assert_problem(strict, 500, "INTERNAL")
    assert strict.body["detail"] == f"pricing {method} failed: INTERNAL"


@pytest.mark.parametrize(("method", "change"), cases(GetStock=STOCK, BatchGetStock=STOCKS, ListStock=PAGE))
async def test_a_stock_that_makes_no_sense_is_inventorys_error(
    shop: Mesh, method: str, change: Callable[[Any], object]
) -> None:
    SPOILED[method] = change
    answer = await shop.get(READS[method])
    assert_problem(answer, 500, "INTERNAL")
    assert answer.body["detail"] == f"inventory {method} failed: INTERNAL"


@pytest.mark.parametrize(("method", "change"), cases(ReserveStock=NEW_RESERVATION, CreateQuote=NEW_QUOTE))
async def test_a_half_of_an_order_that_makes_no_sense_refuses_the_order_and_leaves_nothing(
    shop: Mesh, method: str, change: Callable[[Any], object]
) -> None:
    before, key = await shop.stock(SKU), str(uuid.uuid4())
    SPOILED[method] = change
    refused = await shop.order((SKU, 1), key=key)
    assert_problem(refused, 500, "INTERNAL")
    assert refused.body["detail"].endswith(f" {method} failed: INTERNAL")
    await shop.spans()  # the undo whose end the response did not wait for
    assert await shop.stock(SKU) == before
    SPOILED.clear()
    assert (await shop.order((SKU, 2), key=key)).status == 201  # the key is free for another order


@pytest.mark.parametrize(
    ("method", "change"),
    cases(GetReservation=RESERVATION, GetQuote=QUOTE[:7], CommitReservation=ENDED[-1:], ConfirmQuote=QUOTE[:1]),
)
async def test_an_order_that_makes_no_sense_is_the_backends_error_and_stays_usable(
    shop: Mesh, method: str, change: Callable[[Any], object]
) -> None:
    path = (await shop.order((SKU, 1))).headers["Location"]
    SPOILED[method] = change
    commits = method in {"CommitReservation", "ConfirmQuote"}
    answer = await (shop.ask("POST", f"{path}/commit") if commits else shop.get(path))
    status, reason = (503, "UNAVAILABLE") if method == "ConfirmQuote" else (500, "INTERNAL")
    assert_problem(answer, status, reason)
    assert f"{method} failed: INTERNAL" in answer.body["detail"]
    SPOILED.clear()
    assert (await shop.ask("POST", f"{path}/commit")).body["state"] == "COMMITTED"


@pytest.mark.parametrize(("method", "change"), cases(ReleaseReservation=ENDED[-1:]))
async def test_a_release_that_makes_no_sense_may_be_repeated(
    shop: Mesh, method: str, change: Callable[[Any], object]
) -> None:
    path = (await shop.order((SKU, 1))).headers["Location"]
    SPOILED[method] = change
    assert_problem(await shop.ask("DELETE", path), 500, "INTERNAL")
    SPOILED.clear()
    assert (await shop.ask("DELETE", path)).body["state"] == "RELEASED"


async def test_pricing_whose_responses_cannot_be_parsed_is_internal(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def garbage(_request: bytes, _context: object) -> bytes:
        return b"\xff\xff\xff"

    server = grpc.aio.server()
    methods: dict[str, Any] = dict.fromkeys(
        ("GetPrice", "BatchGetPrices", "CreateQuote", "UndoCreateQuote"), grpc.unary_unary_rpc_method_handler(garbage)
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(PRICING_API.name, methods)])
    async with (
        start_server(server) as address,
        mesh(tmp_path_factory.mktemp("garbage"), pricing_target=address) as shop,
    ):
        for path in (READS["GetPrice"], READS["BatchGetPrices"], READS["ListStock"]):
            answer = await shop.get(path)
            assert answer.status == 200
            for product in answer.body.get("products", [answer.body]):
                assert product["problems"] == [{"service": "pricing", "code": "INTERNAL", "reason": "INTERNAL"}]
        before = await shop.stock(SKU)
        refused = await shop.order((SKU, 1))
        assert_problem(refused, 500, "INTERNAL")
        assert await shop.stock(SKU) == before
