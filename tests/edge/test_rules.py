"""The storefront itself enforces the rules of products and orders, for every protocol in front of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from aiomesh.pricing.v1 import pricing_service_pb2
from api_edge.app import build
from api_edge.domain import InvalidIdempotencyKey, InvalidRequest, Line, UnknownCurrency, UnknownOrder
from api_edge.rest.schemas import NewOrder
from api_edge.rules import MAX_LINES, MAX_PAGE, MAX_QUANTITY, MAX_SKU, canonical_id, check_order, check_products
from api_edge.settings import Settings
from meshkit.errors import AlreadyExists
from meshkit.server.build import OPTIONS
from tests.edge.mesh import Mesh, mesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from api_edge.storefront import Storefront

pytestmark = pytest.mark.asyncio(loop_scope="module")

Call = Callable[["Storefront"], Coroutine[Any, Any, Any]]
LINE = Line("TEA-0001", 1)
KNOWN_ID = "6f2b9c1e-8f3a-5c7e-9d1b-2a4c6e8f0a1b"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def storefront(shop: Mesh) -> AsyncIterator[Storefront]:
    settings = Settings(inventory_target=shop.inventory_address, pricing_target=shop.pricing_address)
    async with build(settings, shop.edge.telemetry) as app:
        yield app.storefront


def product(line: Line = LINE, currency: str = "EUR") -> Call:
    return lambda storefront: storefront.product(line, currency, strict=False)


def products(skus: list[str], currency: str = "EUR", quantity: int = 1) -> Call:
    return lambda storefront: storefront.products(skus, currency, quantity, strict=False)


def page(page_size: int = 20, currency: str = "EUR", quantity: int = 1) -> Call:
    return lambda storefront: storefront.page(page_size, "", currency, quantity, strict=False)


def order(*lines: Line, key: str = "a key", currency: str = "EUR") -> Call:
    return lambda storefront: storefront.place_order(key, lines, currency)


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        (product(Line("", 1)), ["sku"]),
        (product(Line("S" * (MAX_SKU + 1), 1)), ["sku"]),
        (product(Line("T\0", 1)), ["sku"]),
        (product(Line("\ud800", 0)), ["sku", "quantity"]),
        (product(Line("TEA-0001", MAX_QUANTITY + 1), "no currency"), ["quantity"]),
        (products([]), ["skus"]),
        (products(["TEA-0001"] * (MAX_LINES + 1)), ["skus"]),
        (products(["TEA-0001", "", "T\n"], quantity=0), ["skus[1]", "skus[2]", "quantity"]),
        (page(0, quantity=-1), ["page_size", "quantity"]),
        (page(MAX_PAGE + 1), ["page_size"]),
        (order(), ["lines"]),
        (order(*[Line(f"S{number}", 1) for number in range(MAX_LINES + 1)]), ["lines"]),
        (order(LINE, Line("", 0)), ["lines[1].sku", "lines[1].quantity"]),
        (order(LINE, Line("TEA-0002", 1), LINE, LINE), ["lines[2].sku", "lines[3].sku"]),
        (order(LINE, LINE, currency="no currency"), ["lines[1].sku"]),
    ],
)
async def test_an_invalid_request_is_rejected_with_the_paths_of_its_fields(
    storefront: Storefront, call: Call, fields: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await call(storefront)
    error = refused.value
    assert (error.reason, error.domain) == ("INVALID_REQUEST", "api_edge.aiomesh")
    assert [violation.field for violation in error.violations] == fields
    assert all(violation.description for violation in error.violations)


@pytest.mark.parametrize("currency", ["", "eur", "EURO", "E" * 1000])
@pytest.mark.parametrize("call", [product, page])
async def test_an_invalid_currency_is_rejected(
    storefront: Storefront, call: Callable[..., Call], currency: str
) -> None:
    with pytest.raises(UnknownCurrency, match="ISO 4217") as refused:
        await call(currency=currency)(storefront)
    assert len(refused.value.message) < 200


async def test_products_and_orders_in_an_invalid_currency_are_rejected(storefront: Storefront) -> None:
    for call in (products(["TEA-0001"], "eur"), order(LINE, currency="eur")):
        with pytest.raises(UnknownCurrency):
            await call(storefront)


@pytest.mark.parametrize("key", ["", "k" * 256, "\u00e4", "a\tb"])
async def test_an_invalid_key_is_rejected_before_any_other_check(storefront: Storefront, key: str) -> None:
    with pytest.raises(InvalidIdempotencyKey):
        await order(Line("", 0), key=key, currency="eur")(storefront)


@pytest.mark.parametrize("order_id", ["", "x", "{" + KNOWN_ID + "}", KNOWN_ID.replace("-", ""), KNOWN_ID + "\n"])
async def test_an_id_that_is_not_a_uuid_is_an_unknown_order(storefront: Storefront, order_id: str) -> None:
    for read in (storefront.order, storefront.commit_order, storefront.release_order):
        with pytest.raises(UnknownOrder):
            await read(order_id)


async def test_no_rejected_request_reaches_a_backend(shop: Mesh, storefront: Storefront) -> None:
    before = await shop.spans()
    for call in (product(Line("", 1)), products([]), page(0), order(), order(LINE, key=""), page(currency="eur")):
        with pytest.raises((InvalidRequest, InvalidIdempotencyKey, UnknownCurrency)):
            await call(storefront)
    assert await shop.spans() == before


async def test_an_order_is_found_by_its_id_in_capitals(storefront: Storefront) -> None:
    result = await storefront.place_order("capitals", [LINE], "EUR")
    for call in (storefront.order, storefront.commit_order):
        assert (await call(result.reservation.id.upper())).reservation.id == result.reservation.id


async def test_the_error_for_a_reused_key_speaks_of_the_idempotency_key(storefront: Storefront) -> None:
    await storefront.place_order("reused", [LINE], "EUR")
    with pytest.raises(AlreadyExists) as refused:
        await storefront.place_order("reused", [LINE], "JPY")
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert "Idempotency-Key" in refused.value.message


async def test_the_largest_requests_are_within_the_rules() -> None:
    skus = [f"{number:0{MAX_SKU}}" for number in range(MAX_LINES)]
    check_products(skus, MAX_QUANTITY, "EUR")
    check_order("k" * 255, [Line(sku, MAX_QUANTITY) for sku in skus], "EUR")
    assert canonical_id(KNOWN_ID.upper()) == KNOWN_ID


async def test_rest_accepts_the_largest_order_that_the_rules_accept() -> None:
    lines = [{"sku": f"{number:0{MAX_SKU}}", "quantity": MAX_QUANTITY} for number in range(MAX_LINES)]
    assert len(NewOrder.model_validate({"lines": lines}).lines) == MAX_LINES


async def test_the_largest_order_fits_into_a_message() -> None:
    lines = [pricing_service_pb2.PriceLine(sku="茶" * MAX_SKU, quantity=MAX_QUANTITY)] * MAX_LINES
    id_ = str(uuid.uuid4())
    request = pricing_service_pb2.CreateQuoteRequest(
        request_id=id_, attempt_id=id_, lines=lines, currency_code="EUR", fingerprint="f" * 64
    )
    assert request.ByteSize() < dict(OPTIONS)["grpc.max_receive_message_length"]
