"""GET /v1/products and /v1/products/{sku}, with real inventory and pricing."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import pytest
import pytest_asyncio

from api_edge.rest.routes import products
from meshkit.fastapi.plain_route import responder
from tests.edge.mesh import Mesh, assert_problem, mesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi.routing import APIRoute

    from api_edge.storefront import Storefront

pytestmark = pytest.mark.asyncio(loop_scope="module")

CATALOGUE = 256
"""The number of products that inventory is seeded with."""

UNPRICED = ["GFT-0010", "GFT-0011", "GFT-0012"]
"""The products whose prices pricing is not seeded with."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


async def test_a_product_has_its_stock_and_its_price(shop: Mesh) -> None:
    answer = await shop.get("/v1/products/TEA-0001?currency=EUR&quantity=12")
    price = answer.body.pop("price")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == {
        "sku": "TEA-0001",
        "title": "Darjeeling First Flush Margaret's Hope, 100 g",
        "category": "tea",
        "stock": {"on_hand": 500, "reserved": 0, "available": 500, "version": 1},
        "problems": [],
    }
    assert price.keys() == {"currency", "unit_price", "quantity", "total"}
    assert (price["currency"], price["quantity"]) == ("EUR", 12)


@pytest.mark.parametrize(("currency", "digits"), [("JPY", 0), ("EUR", 2), ("KWD", 3)])
async def test_amounts_are_decimal_strings_with_the_digits_of_the_currency(
    shop: Mesh, currency: str, digits: int
) -> None:
    price = (await shop.get(f"/v1/products/TEA-0001?currency={currency}&quantity=12")).body["price"]
    for amount in (price["unit_price"], price["total"]):
        assert isinstance(amount, str)
        assert Decimal(amount).as_tuple().exponent == -digits
        assert Decimal(amount) > 0
    assert Decimal(price["total"]) == 12 * Decimal(price["unit_price"])


async def test_the_default_currency_is_eur_and_the_default_quantity_is_1(shop: Mesh) -> None:
    plain = await shop.get("/v1/products/TEA-0002")
    explicit = await shop.get("/v1/products/TEA-0002?currency=EUR&quantity=1&strict=false")
    assert plain.body == explicit.body
    assert (plain.body["price"]["currency"], plain.body["price"]["quantity"]) == ("EUR", 1)


async def test_the_largest_quantity_is_priced(shop: Mesh) -> None:
    price = (await shop.get("/v1/products/TEA-0001?quantity=1000000")).body["price"]
    assert Decimal(price["total"]) == 1_000_000 * Decimal(price["unit_price"])


async def test_the_pages_contain_each_product_once_in_order(shop: Mesh) -> None:
    skus: list[str] = []
    token = ""
    while True:
        page = await shop.get(f"/v1/products?page_size=33&page_token={token}")
        assert page.body.keys() == {"products", "next_page_token"}
        skus += [product["sku"] for product in page.body["products"]]
        token = page.body["next_page_token"]
        assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        if not token:
            break
    assert len(skus) == CATALOGUE
    assert skus == sorted(set(skus))


async def test_a_page_has_20_products_by_default(shop: Mesh) -> None:
    assert len((await shop.get("/v1/products")).body["products"]) == 20
    assert len((await shop.get("/v1/products?page_size=100")).body["products"]) == 100


async def test_a_page_has_one_currency_and_one_quantity_for_all_products(shop: Mesh) -> None:
    page = await shop.get("/v1/products?page_size=5&currency=KWD&quantity=3")
    assert [(product["price"]["currency"], product["price"]["quantity"]) for product in page.body["products"]] == [
        ("KWD", 3)
    ] * 5


async def test_products_have_the_order_and_the_repetitions_of_the_request(shop: Mesh) -> None:
    skus = ["TEA-0002", "COF-0001", "TEA-0001", "TEA-0002"]
    answer = await shop.get("/v1/products?" + "&".join(f"sku={sku}" for sku in skus))
    assert [product["sku"] for product in answer.body["products"]] == skus
    assert all(product["price"] for product in answer.body["products"])
    assert answer.body["next_page_token"] == ""


async def test_a_request_may_name_100_skus(shop: Mesh) -> None:
    answer = await shop.get("/v1/products?" + "&".join(["sku=TEA-0001"] * 100))
    assert len(answer.body["products"]) == 100


async def test_unknown_skus_are_404_and_are_listed(shop: Mesh) -> None:
    answer = await shop.get("/v1/products?sku=TEA-0001&sku=NO-1&sku=NO-2&sku=NO-1")
    assert_problem(answer, 404, "UNKNOWN_SKU")
    assert answer.body["metadata"] == {"sku": "NO-1,NO-2"}
    assert "NO-1, NO-2" in answer.body["detail"]
    answer = await shop.get("/v1/products/NO-1")
    assert_problem(answer, 404, "UNKNOWN_SKU")
    assert answer.body["metadata"] == {"sku": "NO-1"}
    assert answer.body["instance"] == "/v1/products/NO-1"


@pytest.mark.parametrize("sku", UNPRICED)
async def test_a_product_without_a_price_is_shown_without_one(shop: Mesh, sku: str) -> None:
    answer = await shop.get(f"/v1/products/{sku}")
    assert answer.status == 200
    assert answer.body["price"] is None
    assert answer.body["problems"] == [{"service": "pricing", "code": "NOT_FOUND", "reason": "UNKNOWN_SKU"}]


async def test_only_the_product_without_a_price_has_a_problem(shop: Mesh) -> None:
    products = (await shop.get("/v1/products?sku=TEA-0001&sku=GFT-0010")).body["products"]
    assert [product["price"] is None for product in products] == [False, True]
    assert [len(product["problems"]) for product in products] == [0, 1]
    assert products[1]["problems"] == [{"service": "pricing", "code": "NOT_FOUND", "reason": "UNKNOWN_SKU"}]


@pytest.mark.parametrize("path", ["/v1/products/GFT-0010?strict=true", "/v1/products?sku=GFT-0010&strict=true"])
async def test_with_strict_a_product_without_a_price_is_404(shop: Mesh, path: str) -> None:
    answer = await shop.get(path)
    assert_problem(answer, 404, "UNKNOWN_SKU")
    assert answer.body["domain"] == "pricing.aiomesh"


@pytest.mark.parametrize("path", ["/v1/products/TEA-0001", "/v1/products", "/v1/products?sku=TEA-0001"])
@pytest.mark.parametrize(
    ("currency", "domain"), [("XXX", "pricing.aiomesh"), ("eur", "api_edge.aiomesh"), ("", "api_edge.aiomesh")]
)
async def test_an_unknown_currency_is_400(shop: Mesh, path: str, currency: str, domain: str) -> None:
    answer = await shop.get(f"{path}{'&' if '?' in path else '?'}currency={currency}")
    assert_problem(answer, 400, "UNKNOWN_CURRENCY")
    assert answer.body["domain"] == domain


@pytest.mark.parametrize("token", ["abc", "TEA-0001", "AQ", "%00", "%F0%9F%8D%B5", "A" * 50_000])
async def test_a_foreign_page_token_is_400(shop: Mesh, token: str) -> None:
    assert_problem(await shop.get(f"/v1/products?page_token={token}"), 400, "INVALID_PAGE_TOKEN")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("quantity=0", "quantity"),
        ("quantity=1000001", "quantity"),
        ("quantity=-1", "quantity"),
        ("quantity=abc", "quantity"),
        ("quantity=1.5", "quantity"),
        ("quantity=1.0", "quantity"),
        ("quantity=1_000", "quantity"),
        ("quantity=%2B5", "quantity"),
        ("quantity=%205", "quantity"),
        ("quantity=%D9%A1", "quantity"),
        ("quantity=", "quantity"),
        ("quantity=1" + "0" * 5000, "quantity"),
        ("strict=perhaps", "strict"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/products/TEA-0001", "/v1/products"])
async def test_an_invalid_parameter_is_422_and_is_named(shop: Mesh, path: str, query: str, field: str) -> None:
    answer = await shop.get(f"{path}?{query}")
    assert_problem(answer, 422, "INVALID_REQUEST")
    assert [error["field"] for error in answer.body["errors"]] == [field]
    assert answer.body["errors"][0]["description"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_size=0", "page_size"),
        ("page_size=101", "page_size"),
        ("page_size=5.0", "page_size"),
        ("&".join(f"sku=S{number}" for number in range(101)), "sku"),
        ("sku=TEA-0001&sku=", "sku[1]"),
        ("sku=" + "S" * 65, "sku[0]"),
        ("sku=%00", "sku[0]"),
        ("sku=%E2%80%8B", "sku[0]"),
    ],
)
async def test_an_invalid_list_parameter_is_422_and_is_named(shop: Mesh, query: str, field: str) -> None:
    answer = await shop.get(f"/v1/products?{query}")
    assert_problem(answer, 422, "INVALID_REQUEST")
    assert [error["field"] for error in answer.body["errors"]] == [field]


async def test_all_invalid_parameters_are_listed(shop: Mesh) -> None:
    answer = await shop.get("/v1/products?quantity=0&page_size=0&strict=perhaps")
    assert_problem(answer, 422, "INVALID_REQUEST")
    assert {error["field"] for error in answer.body["errors"]} == {"quantity", "page_size", "strict"}


@pytest.mark.parametrize("route", products.router(cast("Storefront", None)).routes, ids=str)
async def test_each_read_takes_the_shorter_way_through_fastapi(route: APIRoute) -> None:
    assert responder(route) is not None


async def test_no_read_is_handed_to_a_worker_thread(shop: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI runs what is not `async` in threads of anyio, which stay for 10 s; asyncio has an executor of its own."""
    executed: list[object] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", lambda *call: executed.append(call))
    for path in ("/TEA-0001", "/TEA-9999", "?page_size=2", "?sku=TEA-0001", "?page_size=0"):
        assert (await shop.get(f"/v1/products{path}")).status in {200, 404, 422}
    assert [thread for thread in threading.enumerate() if thread.name.startswith("AnyIO worker")] == []
    assert executed == []
