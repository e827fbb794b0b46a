"""/docs works without the internet, because the edge serves all of its files."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.browser import CHROMIUM, FLAGS, browsing, needs_browser
from tests.edge.mesh import PROBLEM, Mesh, mesh
from tests.inventory.opened import HOLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

DUMP = ["--disable-component-update", "--disable-sync", "--virtual-time-budget=15000", "--dump-dom"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A shop in which no test places an order."""
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(loop_scope="module")
async def new_shop(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path) as shop:
        yield shop


async def test_the_page_loads_only_files_of_the_edge(shop: Mesh) -> None:
    page = await shop.get("/docs")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "//" not in re.sub(r"(?m)^\s*<!--.*-->$", "", page.text)
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(parts) == 4
    for part in parts:
        async with shop.http.get(shop.url + part) as answer:
            assert answer.status == 200


async def test_an_unknown_asset_is_a_problem(shop: Mesh) -> None:
    answer = await shop.get("/docs/assets/nothing.js")
    assert (answer.status, answer.body["reason"]) == (404, "UNKNOWN_ROUTE")


@pytest.mark.parametrize("range_", ["bytes=0-5", "bytes=999999999-", "bytes=abc", "x"])
async def test_an_asset_is_returned_whole_for_any_range(shop: Mesh, range_: str) -> None:
    path = "/docs/assets/swagger-ui.css"
    assert (await shop.get(path, headers={"Range": range_})).text == (await shop.get(path)).text


@needs_browser
@pytest.mark.timeout(60)
async def test_a_browser_without_internet_shows_every_operation(shop: Mesh, tmp_path: Path) -> None:
    nowhere_else = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    browser = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        *FLAGS,
        *DUMP,
        nowhere_else,
        f"--user-data-dir={tmp_path / 'profile'}",
        f"{shop.url}/docs",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    page, _ = await browser.communicate()
    operations = re.findall(r'class="opblock opblock-(get|post|delete)"', page.decode())
    assert sorted(operations) == ["delete", "get", "get", "get", "post", "post"]


async def examples(shop: Mesh, method: str, path: str, status: int) -> dict[str, Any]:
    """The documented responses of a route, by the names of the examples."""
    document = (await shop.get("/openapi.json")).body
    content = document["paths"][path][method]["responses"][str(status)]["content"]
    found = content.get("application/json") or content[PROBLEM]
    return {name: example["value"] for name, example in found["examples"].items()}


async def new_order(shop: Mesh) -> dict[str, Any]:
    """The example request of the documentation for an order, with its example key."""
    document = (await shop.get("/openapi.json")).body
    responses = document["paths"]["/v1/orders"]["post"]["responses"]
    (body,) = document["components"]["schemas"]["NewOrder"]["examples"]
    return {"json": body, "headers": {"Idempotency-Key": responses["201"]["headers"]["Idempotency-Key"]["example"]}}


async def test_the_examples_of_products_are_what_the_seeded_shop_returns(shop: Mesh) -> None:
    document = (await shop.get("/openapi.json")).body
    (sku,) = [item for item in document["paths"]["/v1/products"]["get"]["parameters"] if item["name"] == "sku"]
    query = "&".join(f"sku={example}" for example in sku["schema"]["example"])
    assert (await shop.get(f"/v1/products?{query}")).body == (await examples(shop, "get", "/v1/products", 200))[
        "two products"
    ]
    product = (await examples(shop, "get", "/v1/products/{sku}", 200))["with a price"]
    (path,) = [item for item in document["paths"]["/v1/products/{sku}"]["get"]["parameters"] if item["name"] == "sku"]
    assert (await shop.get(f"/v1/products/{path['schema']['example']}")).body == product


async def test_the_example_order_can_be_placed_read_and_committed_as_documented(new_shop: Mesh) -> None:
    shop, path = new_shop, "/v1/orders/{order_id}"
    order = await shop.ask("POST", "/v1/orders", **await new_order(shop))
    assert order.status == 201
    assert order.body == (await examples(shop, "post", "/v1/orders", 201))["reserved"]
    read = await shop.get(order.headers["Location"])
    assert read.body == (await examples(shop, "get", path, 200))["reserved"]
    committed = await shop.ask("POST", f"{order.headers['Location']}/commit")
    assert committed.body == (await examples(shop, "post", f"{path}/commit", 200))["committed"]


async def test_the_example_order_can_be_released_or_expire_as_documented(tmp_path: Path) -> None:
    path = "/v1/orders/{order_id}"
    for name in ("released", "expired"):
        (tmp_path / name).mkdir()
        async with mesh(tmp_path / name) as shop:
            location = (await shop.ask("POST", "/v1/orders", **await new_order(shop))).headers["Location"]
            if name == "expired":
                shop.clock.advance(HOLD)
            method = "DELETE" if name == "released" else "GET"
            assert (await shop.ask(method, location)).body == (await examples(shop, method.lower(), path, 200))[name]


@pytest.mark.parametrize(
    ("method", "template", "path", "reason"),
    [
        ("get", "/v1/products/{sku}", "/v1/products/TEA-9999", "UNKNOWN_SKU"),
        ("get", "/v1/products", "/v1/products?sku=TEA-9999", "UNKNOWN_SKU"),
        ("post", "/v1/orders", "TEA-9999 1", "UNKNOWN_SKU"),
        ("post", "/v1/orders", "TEA-0001 501", "INSUFFICIENT_STOCK"),
    ],
)
async def test_the_examples_of_errors_are_what_the_seeded_shop_returns(
    shop: Mesh, method: str, template: str, path: str, reason: str
) -> None:
    if method == "post":
        sku, quantity = path.split(" ")
        answer = await shop.order((sku, int(quantity)))
    else:
        answer = await shop.get(path)
    example = (await examples(shop, method, template, answer.status))[reason]
    assert answer.body == example | {"trace_id": answer.trace_id}


STATUS = "document.querySelector('.live-responses-table .response .response-col_status')?.textContent.trim()"


def execute(path: str, method: str) -> str:
    """Clicks Execute once Swagger UI has resolved the operation: an earlier click disables the button for good."""
    resolved = f"ui.specSelectors.specResolvedSubtree(['paths', '{path}', '{method}'])"
    return f"{resolved} && (document.querySelector('button.execute').click(), true)"


@needs_browser
@pytest.mark.timeout(240)
async def test_the_prefilled_requests_can_be_executed_unchanged(new_shop: Mesh, tmp_path: Path) -> None:
    async with browsing(tmp_path / "profile") as tab:
        for operation, click, status in (
            ("products/get_product", execute("/v1/products/{sku}", "get"), 200),
            ("products/list_products", execute("/v1/products", "get"), 200),
            ("orders/place_order", execute("/v1/orders", "post"), 201),
        ):
            await tab.show("about:blank", until="location.href === 'about:blank'")
            await tab.show(f"{new_shop.url}/docs#/{operation}", until="document.querySelector('button.execute')")
            await tab.wait(click)
            await tab.wait(f"({STATUS})?.startsWith('{status}')")


@needs_browser
@pytest.mark.timeout(60)
async def test_the_page_follows_the_dark_mode_of_the_system(shop: Mesh, tmp_path: Path) -> None:
    async with browsing(tmp_path / "profile") as tab:
        await tab.prefer("dark")
        await tab.show(f"{shop.url}/docs", until="document.querySelector('.opblock')")
        for scheme, is_dark in (("dark", True), ("light", False), ("dark", True)):
            await tab.prefer(scheme)
            await tab.wait(f"document.documentElement.classList.contains('dark-mode') === {str(is_dark).lower()}")
            for selector, style in {"html": "backgroundColor", ".opblock-summary-path": "color"}.items():
                color = await tab.value(f"getComputedStyle(document.querySelector('{selector}')).{style}")
                red, green, blue, *alpha = (float(part) for part in re.findall("[0-9.]+", color))
                bright = alpha == [0] or red + green + blue > 384  # a transparent background is white
                assert bright is (is_dark == (style == "color")), (scheme, selector, color)
