"""Every protocol of the edge in front of the same storefront: the same values, errors and traces.

Each test runs once for each protocol. Clients decode into the domain of the storefront, and all that differs between
protocols is the status that stands for a code of gRPC, and that REST rounds a retry delay up.
"""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec

from api_edge import rules
from api_edge.app import build
from api_edge.domain import Degradation, Line, OrderState
from api_edge.settings import Settings
from inventory.servicer import InventoryServicer
from meshkit.errors import TABLE, FieldViolation, InvalidArgument, retry_delay
from pricing.servicer import PricingServicer
from tests.edge.mesh import Mesh, mesh
from tests.edge.protocols.client import Details, Failure, ShopClient, failure_of
from tests.edge.protocols.connect import ConnectCaller
from tests.edge.protocols.rest import RestClient
from tests.edge.protocols.rpc import GrpcCaller, RpcClient
from tests.edge.protocols.web import WebCaller
from tests.edge.trees import tree
from tests.inventory.opened import HOLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from api_edge.domain import Order
    from api_edge.storefront import Storefront

pytestmark = pytest.mark.asyncio(loop_scope="module")

EDGE, INVENTORY, PRICING = "api_edge.aiomesh", "inventory.aiomesh", "pricing.aiomesh"
NOBODY = "00000000-0000-0000-0000-000000000000"
UNPRICED = "GFT-0010"
"""A product of the seed without a price."""

KINDS = {row.code: row for row in TABLE}


class Failing(InventoryServicer):
    """Fails as the requested SKU names."""

    async def GetStock(self, request: Any, context: Any) -> Any:
        fail_as_named(request.sku)
        return await super().GetStock(request, context)


class FailingPricing(PricingServicer):
    """Fails if the currency is the code of a country and not of a currency."""

    async def GetPrice(self, request: Any, context: Any) -> Any:
        fail_as_named(FAILURES.get(request.currency_code, ""))
        return await super().GetPrice(request, context)


FAILURES = {"XXA": "UNAVAILABLE", "XXB": "RESOURCE_EXHAUSTED", "XXC": "INVALID_ARGUMENT"}
"""What pricing fails with, by the requested currency."""


def fail_as_named(code: str) -> None:
    if code == "VIOLATION":
        raise InvalidArgument("not so", violations=[FieldViolation("sku", "too common")], sku=code)
    if code in KINDS:
        raise KINDS[code].kind(f"{code} on purpose", retry_after=2.5 if code == "RESOURCE_EXHAUSTED" else None, a="b")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("shop")
    async with mesh(folder, inventory_servicer=Failing, pricing_servicer=FailingPricing, grpc=True) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(shop: Mesh) -> AsyncIterator[dict[str, ShopClient]]:
    async with grpc.aio.insecure_channel(shop.grpc_address) as channel:
        yield {
            "rest": RestClient(shop),
            "grpc": RpcClient(GrpcCaller(channel)),
            "connect": RpcClient(ConnectCaller(shop.url, google_protobuf_binary_codec())),
            "connect-json": RpcClient(ConnectCaller(shop.url, google_protobuf_json_codec())),
            "connect-get": RpcClient(ConnectCaller(shop.url, google_protobuf_json_codec(), gets=True)),
            "grpc-web": RpcClient(WebCaller(shop.http, shop.url)),
        }


@pytest.fixture(params=["rest", "grpc", "connect", "connect-json", "connect-get", "grpc-web"])
def client(request: pytest.FixtureRequest, clients: dict[str, ShopClient]) -> ShopClient:
    return clients[request.param]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def storefront(shop: Mesh) -> AsyncIterator[Storefront]:
    """Another storefront on the same backends, called in this process."""
    settings = Settings(inventory_target=shop.inventory_address, pricing_target=shop.pricing_address)
    async with build(settings, shop.edge.telemetry) as app:
        yield app.storefront


@pytest.fixture
def key() -> str:
    return secrets.token_hex(16)


async def assert_fails(client: ShopClient, call: Awaitable[object], code: str, details: Details) -> None:
    failure = await failure_of(call)
    assert (failure.status, failure.details) == (client.status_of(code), details)


def shown(order: Order) -> Order:
    """The order without its fingerprint, which no protocol shows."""
    return replace(
        order, reservation=replace(order.reservation, fingerprint=""), quote=replace(order.quote, fingerprint="")
    )


@pytest.mark.parametrize(("currency", "quantity"), [("EUR", 1), ("JPY", 12), ("KWD", 1_000_000)])
async def test_a_product_has_its_stock_and_its_price(
    client: ShopClient, storefront: Storefront, currency: str, quantity: int
) -> None:
    expected = await storefront.product(Line("TEA-0002", quantity), currency, strict=True)
    assert expected.price
    assert await client.product("TEA-0002", currency=currency, quantity=quantity, strict=True) == expected


async def test_a_request_without_currency_and_quantity_is_for_one_unit_in_euros(
    client: ShopClient, storefront: Storefront
) -> None:
    assert await client.product("TEA-0002") == await storefront.product(Line("TEA-0002", 1), "EUR", strict=True)


async def test_pages_follow_each_other(client: ShopClient, storefront: Storefront) -> None:
    first = await client.products()
    assert first == await storefront.page(20, "", "EUR", 1, strict=False)
    second = await client.products(page_size=3, page_token=first[1], currency="JPY", quantity=2)
    assert second == await storefront.page(3, first[1], "JPY", 2, strict=False)
    assert (len(first[0]), len(second[0])) == (20, 3)


async def test_some_products_are_read_by_sku_in_the_requested_order(client: ShopClient, storefront: Storefront) -> None:
    skus = ["TEA-0003", "TEA-0002", "TEA-0003"]
    assert await client.products(skus) == (await storefront.products(skus, "EUR", 1, strict=False), "")


async def test_an_order_is_placed_read_committed_and_stays_so(
    client: ShopClient, shop: Mesh, storefront: Storefront, key: str
) -> None:
    placed = await client.place_order([Line("TEA-0004", 2), Line("TEA-0005", 1)], keys=[key], currency="JPY")
    id_ = placed.order.reservation.id
    assert (placed.key, id_) == (key, rules.order_id(key))
    assert placed.order == shown(await storefront.order(id_)) == await client.order(id_)
    assert placed.order.reservation.state is OrderState.RESERVED
    assert placed.order.reservation.expire_time == shop.clock() + HOLD
    committed = await client.commit_order(id_)
    assert committed.reservation.state is OrderState.COMMITTED
    assert committed == await client.commit_order(id_) == await client.order(id_)
    assert (await client.place_order([Line("TEA-0004", 2), Line("TEA-0005", 1)], keys=[key], currency="JPY")) == (
        committed,
        key,
    )
    details = Details(
        f"reservation {id_} is committed and can no longer be released",
        "RESERVATION_COMMITTED",
        INVENTORY,
        {"reservation_id": id_},
    )
    await assert_fails(client, client.release_order(id_), "FAILED_PRECONDITION", details)


async def test_an_order_may_be_released(client: ShopClient, key: str) -> None:
    id_ = (await client.place_order([Line("TEA-0006", 1)], keys=[key])).order.reservation.id
    released = await client.release_order(id_)
    assert released.reservation.state is OrderState.RELEASED
    assert released == await client.release_order(id_) == await client.order(id_)


async def test_an_order_of_one_protocol_is_the_order_of_every_other(clients: dict[str, ShopClient], key: str) -> None:
    lines = [Line("TEA-0007", 1)]
    found = [await client.place_order(lines, keys=[key]) for client in clients.values()]
    found += [await client.place_order(lines, keys=[key], currency="EUR") for client in clients.values()]
    assert found == [found[0]] * len(found)


async def test_an_order_without_a_key_gets_one_that_finds_it_again(client: ShopClient) -> None:
    lines = [Line("TEA-0008", 1)]
    one, other = [await client.place_order(lines) for _ in range(2)]
    assert one.key != other.key
    assert await client.place_order(lines, keys=[one.key]) == one


@pytest.mark.parametrize("keys", [[""], ["k" * 256], ["one", "two"], ["one", "one"]])
async def test_an_invalid_key_is_rejected(client: ShopClient, keys: list[str]) -> None:
    details = Details("Idempotency-Key must be 1 to 255 printable ASCII characters", "INVALID_IDEMPOTENCY_KEY", EDGE)
    await assert_fails(client, client.place_order([Line("TEA-0001", 1)], keys=keys), "INVALID_ARGUMENT", details)


async def test_a_key_of_another_order_is_refused(client: ShopClient, key: str) -> None:
    await client.place_order([Line("TEA-0009", 1)], keys=[key])
    failure = await failure_of(client.place_order([Line("TEA-0009", 2)], keys=[key]))
    assert failure.status == client.status_of("ALREADY_EXISTS")
    message = "This Idempotency-Key was already used for a different order; use a new key"
    assert replace(failure.details, domain="") == Details(message, "REQUEST_ID_REUSED", "")
    assert failure.details.domain in {INVENTORY, PRICING}


async def test_an_order_of_too_many_units_has_the_metadata_of_inventory(
    client: ShopClient, storefront: Storefront
) -> None:
    (product,) = await storefront.products(["TEA-0010"], "EUR", 1, strict=False)
    available = str(product.stock.available)
    details = Details(
        f"TEA-0010: 1000000 requested, {available} available",
        "INSUFFICIENT_STOCK",
        INVENTORY,
        {"sku": "TEA-0010", "requested": "1000000", "available": available},
    )
    await assert_fails(client, client.place_order([Line("TEA-0010", 1_000_000)]), "FAILED_PRECONDITION", details)


@pytest.mark.parametrize("order_id", [NOBODY, "x"])
@pytest.mark.parametrize("verb", ["order", "commit_order", "release_order"])
async def test_an_unknown_order_is_not_found(client: ShopClient, verb: str, order_id: str) -> None:
    details = Details(f"there is no order {order_id}", "UNKNOWN_ORDER", EDGE, {"order_id": order_id})
    await assert_fails(client, getattr(client, verb)(order_id), "NOT_FOUND", details)


REFUSED: dict[str, tuple[Callable[[ShopClient], Awaitable[object]], str, Details]] = {
    "an unknown SKU": (
        lambda client: client.product("NO-1"),
        "NOT_FOUND",
        Details("there is no SKU 'NO-1'", "UNKNOWN_SKU", INVENTORY, {"sku": "NO-1"}),
    ),
    "unknown SKUs of several": (
        lambda client: client.products(["NO-1", "TEA-0002", "NO-2"]),
        "NOT_FOUND",
        Details("there is no product NO-1, NO-2", "UNKNOWN_SKU", EDGE, {"sku": "NO-1,NO-2"}),
    ),
    "a currency of another form": (
        lambda client: client.product("TEA-0002", currency="eur"),
        "INVALID_ARGUMENT",
        Details("'eur' is not a currency: three capital letters, such as EUR (ISO 4217)", "UNKNOWN_CURRENCY", EDGE),
    ),
    "a currency without a rate": (
        lambda client: client.products(["TEA-0002"], currency="XTS"),
        "INVALID_ARGUMENT",
        Details("no exchange rate for currency 'XTS'", "UNKNOWN_CURRENCY", PRICING, {"currency": "XTS"}),
    ),
    "a page token of nobody": (
        lambda client: client.products(page_token="x"),  # noqa: S106 - not a password
        "INVALID_ARGUMENT",
        Details(
            "the page token is invalid; use the next_page_token of the previous page", "INVALID_PAGE_TOKEN", INVENTORY
        ),
    ),
    "an error of pricing that is the caller's": (
        lambda client: client.product("TEA-0002", currency="XXC"),
        "INVALID_ARGUMENT",
        Details("pricing GetPrice failed: INVALID_ARGUMENT", "INVALID_ARGUMENT", "", {"a": "b"}),
    ),
    "violations of a backend": (
        lambda client: client.product("VIOLATION"),
        "INVALID_ARGUMENT",
        Details(
            "inventory GetStock failed: INVALID_ARGUMENT",
            "INVALID_ARGUMENT",
            "",
            {"sku": "VIOLATION"},
            (FieldViolation("sku", "too common"),),
        ),
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_a_refused_request_has_the_error_with_all_its_details(client: ShopClient, refused: str) -> None:
    call, code, details = REFUSED[refused]
    await assert_fails(client, call(client), code, details)


@pytest.mark.parametrize("code", sorted(KINDS))
async def test_each_kind_of_error_arrives_with_its_retry_delay(client: ShopClient, code: str) -> None:
    error = KINDS[code].kind("", retry_after=2.5 if code == "RESOURCE_EXHAUSTED" else None)
    delay = retry_delay(error)
    details = Details(
        f"inventory GetStock failed: {code}",
        error.reason,
        "",
        {"a": "b"},
        retry_after=None if delay is None else client.delay_of(delay),
    )
    await assert_fails(client, client.product(code), code, details)


INVALID: dict[str, tuple[Callable[[ShopClient], Awaitable[object]], set[str]]] = {
    "no units": (lambda client: client.product("TEA-0001", quantity=0), {"quantity"}),
    "too many units": (lambda client: client.product("TEA-0001", quantity=1_000_001), {"quantity"}),
    "a long SKU": (lambda client: client.product("S" * 65), {"sku"}),
    "no page": (lambda client: client.products(page_size=0), {"page_size"}),
    "a long page": (lambda client: client.products(page_size=101, quantity=-1), {"page_size", "quantity"}),
    "no lines": (lambda client: client.place_order([]), {"lines"}),
    "wrong lines": (
        lambda client: client.place_order([Line("TEA-0001", 0), Line("", 1)]),
        {"lines[0].quantity", "lines[1].sku"},
    ),
}


@pytest.mark.parametrize("invalid", INVALID)
async def test_an_invalid_request_lists_its_invalid_fields(client: ShopClient, invalid: str) -> None:
    """REST checks the schema of its own document first, so its words differ."""
    call, fields = INVALID[invalid]
    failure = await failure_of(call(client))
    assert (failure.status, failure.details.reason, failure.details.domain) == (client.invalid, "INVALID_REQUEST", EDGE)
    assert {violation.field for violation in failure.details.violations} == fields
    assert all(violation.description for violation in failure.details.violations)


@pytest.mark.parametrize("currency", ["XXA", "XXB"])
async def test_a_product_is_shown_without_its_price_and_with_the_problem(client: ShopClient, currency: str) -> None:
    code = FAILURES[currency]
    product = await client.product("TEA-0002", currency=currency)
    assert (product.stock.sku, product.price) == ("TEA-0002", None)
    assert product.problems == (Degradation("pricing", code, code),)


@pytest.mark.parametrize("currency", ["XXA", "XXB"])
async def test_with_strict_a_missing_price_is_the_error_of_pricing(client: ShopClient, currency: str) -> None:
    code = FAILURES[currency]
    delay = client.delay_of(2.5 if code == "RESOURCE_EXHAUSTED" else 1.0)
    details = Details(f"pricing GetPrice failed: {code}", code, "", {"a": "b"}, retry_after=delay)
    await assert_fails(client, client.product("TEA-0002", currency=currency, strict=True), code, details)


async def test_a_product_without_a_price_has_the_problem_of_pricing(client: ShopClient) -> None:
    product = await client.product(UNPRICED)
    assert (product.price, product.problems) == (None, (Degradation("pricing", "NOT_FOUND", "UNKNOWN_SKU"),))
    assert (await client.products([UNPRICED]))[0] == [product]


TRACED: dict[str, Callable[[ShopClient, str], Awaitable[object]]] = {
    "a product": lambda client, _: client.product("TEA-0002"),
    "some products": lambda client, _: client.products(["TEA-0002", "TEA-0003"]),
    "a page": lambda client, _: client.products(page_size=2),
    "a product without its price": lambda client, _: client.product("TEA-0002", currency="XXA"),
    "an unknown product": lambda client, _: client.products(["NO-1"]),
    "an order": lambda client, _: client.place_order([Line("TEA-0011", 1)]),
    "a refused order": lambda client, _: client.place_order([Line("TEA-0011", 1_000_000)]),
    "an order that is read": lambda client, id_: client.order(id_),
    "an order that is committed": lambda client, id_: client.commit_order(id_),
    "an order that is released": lambda client, id_: client.release_order(id_),
    "an invalid request": lambda client, _: client.products(page_size=0),
}


RACE = "an unknown order"
"""Both backends do not find it, and the first to say so cancels the call of the other, which may have reached it."""


def certain(spans: list[ReadableSpan], call: str) -> list[ReadableSpan]:
    """The spans that a call always has."""
    return [span for span in spans if call != RACE or span.resource.attributes["service.name"] == "api_edge"]


@pytest.mark.parametrize("call", TRACED)
async def test_the_trace_below_its_root_is_the_same(clients: dict[str, ShopClient], shop: Mesh, call: str) -> None:
    found = []
    for client in clients.values():
        id_ = (await client.place_order([Line("TEA-0012", 1)])).order.reservation.id
        with suppress(Failure):
            await TRACED[call](client, id_)
        ((service, _, below),) = tree(certain(await shop.spans(client.trace.trace_id), call), client.trace.parent)
        found.append((service, below))
    assert found == [found[0]] * len(clients)
    assert bool(found[0][1]) is (call != "an invalid request")


async def test_the_root_of_an_order_has_its_id(client: ShopClient, shop: Mesh, key: str) -> None:
    await client.place_order([Line("TEA-0013", 1)], keys=[key])
    spans = await shop.spans(client.trace.trace_id)
    found = [span.attributes for span in spans if span.attributes and "order.id" in span.attributes]
    assert [attributes["order.id"] for attributes in found] == [rules.order_id(key)]
