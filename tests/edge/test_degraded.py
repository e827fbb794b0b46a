"""The responses of the edge when a backend fails: products without a price, or errors by the table of errors."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from opentelemetry.trace import StatusCode

from aiomesh.inventory.v1 import inventory_pb2
from inventory.servicer import InventoryServicer
from meshkit.errors import TABLE, FieldViolation, InvalidArgument, NotFound, ResourceExhausted
from pricing.servicer import PricingServicer
from tests.edge.mesh import Mesh, absent_server, assert_problem, mesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = {row.code: row for row in TABLE}
HANGS = "HANGS"
DEGRADING = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "NOT_FOUND", "CANCELLED"]


async def fail_as_named(name: str) -> None:
    """Raises an error if the SKU is the code of its kind, hangs if it is HANGS, and otherwise does nothing."""
    if name == HANGS:
        await asyncio.Event().wait()
    if name in KINDS:
        raise KINDS[name].kind(f"{name} on purpose", retry_after=2.5 if name == "RESOURCE_EXHAUSTED" else None)


class OutOfStories(NotFound, domain="test.aiomesh"):
    """An error with its own domain."""


class FailingPricing(PricingServicer):
    """Fails as the requested SKU names."""

    async def GetPrice(self, request: Any, context: Any) -> Any:
        await fail_as_named(request.sku)
        return await super().GetPrice(request, context)

    async def BatchGetPrices(self, request: Any, context: Any) -> Any:
        await fail_as_named(request.lines[0].sku)
        return await super().BatchGetPrices(request, context)


class InventoryOfAnySku(InventoryServicer):
    """Returns the stock of TEA-0001 for every SKU, so that only pricing fails."""

    async def GetStock(self, request: Any, context: Any) -> Any:
        name, request.sku = request.sku, "TEA-0001"
        response = await super().GetStock(request, context)
        response.stock.sku = name
        return response

    async def BatchGetStock(self, request: Any, context: Any) -> Any:
        names, request.skus[:] = list(request.skus), ["TEA-0001"] * len(request.skus)
        response = await super().BatchGetStock(request, context)
        for stock, name in zip(response.stocks, names, strict=True):
            stock.sku = name
        return response


class FailingInventory(InventoryServicer):
    """Fails as the requested SKU, or the page token, names."""

    async def GetStock(self, request: Any, context: Any) -> Any:
        await fail_as_named(request.sku)
        return await super().GetStock(request, context)

    async def ListStock(self, request: Any, context: Any) -> Any:
        await fail_as_named(request.page_token)
        return await super().ListStock(request, context)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def without_pricing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("without_pricing")
    async with mesh(folder, inventory_servicer=InventoryOfAnySku, pricing_servicer=FailingPricing) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def without_inventory(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("without_inventory"), inventory_servicer=FailingInventory) as shop:
        yield shop


@pytest.mark.parametrize("code", DEGRADING)
@pytest.mark.parametrize("path", ["/v1/products/{}", "/v1/products?sku={}&sku=TEA-0001"])
async def test_a_product_is_shown_without_a_price_when_pricing_fails(
    without_pricing: Mesh, path: str, code: str
) -> None:
    answer = await without_pricing.get(path.format(code))
    assert answer.status == 200
    for product in answer.body.get("products", [answer.body]):
        assert product["stock"]["on_hand"] == 500
        assert product["price"] is None
        assert product["problems"] == [{"service": "pricing", "code": code, "reason": KINDS[code].kind.reason}]


@pytest.mark.parametrize("code", DEGRADING)
@pytest.mark.parametrize("path", ["/v1/products/{}?strict=true", "/v1/products?sku={}&strict=true"])
async def test_with_strict_the_error_of_pricing_is_returned(without_pricing: Mesh, path: str, code: str) -> None:
    row = KINDS[code]
    assert_problem(await without_pricing.get(path.format(code)), row.http, row.kind.reason)


@pytest.mark.parametrize("code", sorted(KINDS.keys() - set(DEGRADING)))
@pytest.mark.parametrize("path", ["/v1/products/{}", "/v1/products?sku={}"])
async def test_other_errors_of_pricing_are_returned_even_without_strict(
    without_pricing: Mesh, path: str, code: str
) -> None:
    row = KINDS[code]
    assert_problem(await without_pricing.get(path.format(code)), row.http, row.kind.reason)


@pytest.mark.parametrize("path", ["/v1/products/HANGS", "/v1/products?sku=HANGS"])
async def test_a_product_is_shown_without_a_price_within_the_budget_when_pricing_hangs(
    without_pricing: Mesh, path: str
) -> None:
    answer = await without_pricing.get(path, headers={"X-Request-Timeout-Ms": "1000"})
    assert answer.status == 200
    (product,) = answer.body.get("products", [answer.body])
    assert product["price"] is None
    assert product["problems"] == [{"service": "pricing", "code": "DEADLINE_EXCEEDED", "reason": "DEADLINE_EXCEEDED"}]


async def test_with_strict_a_hanging_pricing_is_504(without_pricing: Mesh) -> None:
    answer = await without_pricing.get("/v1/products/HANGS?strict=true", headers={"X-Request-Timeout-Ms": "200"})
    assert_problem(answer, 504, "DEADLINE_EXCEEDED")


async def test_a_read_has_a_default_budget(without_pricing: Mesh) -> None:
    assert (await without_pricing.get("/v1/products/HANGS")).body["price"] is None


async def test_an_exhausted_budget_is_504(without_pricing: Mesh) -> None:
    answer = await without_pricing.get("/v1/products/TEA-0001", headers={"X-Request-Timeout-Ms": "1"})
    assert_problem(answer, 504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("code", sorted(KINDS))
async def test_each_kind_of_error_has_its_http_status(without_inventory: Mesh, code: str) -> None:
    row = KINDS[code]
    answer = await without_inventory.get(f"/v1/products/{code}")
    assert_problem(answer, row.http, row.kind.reason)


@pytest.mark.parametrize("code", sorted(KINDS))
async def test_retryable_errors_have_a_retry_after_header(without_inventory: Mesh, code: str) -> None:
    answer = await without_inventory.get(f"/v1/products/{code}")
    expected = {"RESOURCE_EXHAUSTED": "3", "UNAVAILABLE": "1"}
    assert answer.headers.get("Retry-After") == expected.get(code)


async def test_resource_exhausted_has_a_default_retry_after(tmp_path: Path) -> None:
    class Busy(InventoryServicer):
        async def GetStock(self, request: Any, context: Any) -> Any:
            raise ResourceExhausted("busy")

    async with mesh(tmp_path, inventory_servicer=Busy) as shop:
        answer = await shop.get("/v1/products/TEA-0001")
    assert_problem(answer, 429, "RESOURCE_EXHAUSTED")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", ["/v1/products/HANGS", "/v1/products?page_token=HANGS"])
async def test_a_hanging_inventory_is_504_within_the_budget(without_inventory: Mesh, path: str) -> None:
    answer = await without_inventory.get(path, headers={"X-Request-Timeout-Ms": "200"})
    assert_problem(answer, 504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL"])
async def test_a_page_without_inventory_is_its_error(without_inventory: Mesh, code: str) -> None:
    row = KINDS[code]
    assert_problem(await without_inventory.get(f"/v1/products?page_token={code}"), row.http, row.kind.reason)


@pytest.mark.parametrize(
    ("silent", "strict_status", "code"), [(False, 503, "UNAVAILABLE"), (True, 504, "DEADLINE_EXCEEDED")]
)
@pytest.mark.parametrize("path", ["/v1/products/TEA-0001?", "/v1/products?page_size=1&"])
async def test_a_product_is_shown_without_a_price_when_pricing_is_unreachable(
    tmp_path: Path, path: str, *, silent: bool, strict_status: int, code: str
) -> None:
    headers = {"X-Request-Timeout-Ms": "400"} if silent else {}
    with absent_server(silent=silent) as address:
        async with mesh(tmp_path, pricing_target=address) as shop:
            answers = [await shop.get(f"{path}strict={strict}", headers=headers) for strict in ("false", "true")]
    degraded, strict = answers
    (product,) = degraded.body.get("products", [degraded.body])
    assert degraded.status == 200
    assert product["price"] is None
    assert product["problems"] == [{"service": "pricing", "code": code, "reason": code}]
    if not silent:  # a later call may fail earlier, as UNAVAILABLE
        assert_problem(strict, strict_status, code)
    assert strict.status in {503, 504}
    assert address not in strict.text


@pytest.mark.parametrize(
    ("silent", "status", "reason"), [(False, 503, "UNAVAILABLE"), (True, 504, "DEADLINE_EXCEEDED")]
)
@pytest.mark.parametrize("path", ["/v1/products/TEA-0001", "/v1/products", "/v1/products?sku=TEA-0001"])
async def test_a_product_without_inventory_is_its_error(
    tmp_path: Path, path: str, *, silent: bool, status: int, reason: str
) -> None:
    with absent_server(silent=silent) as address:
        async with mesh(tmp_path, inventory_target=address) as shop:
            answer = await shop.get(path, headers={"X-Request-Timeout-Ms": "400"} if silent else {})
    assert_problem(answer, status, reason)
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
    assert "inventory" in answer.body["detail"]
    assert address not in answer.text


async def test_the_text_of_an_exception_in_a_backend_is_not_returned(tmp_path: Path) -> None:
    class Crashing(InventoryServicer):
        async def GetStock(self, request: Any, context: Any) -> Any:
            raise ZeroDivisionError("a secret")

    async with mesh(tmp_path, inventory_servicer=Crashing) as shop:
        answer = await shop.get("/v1/products/TEA-0001")
    assert_problem(answer, 500, "INTERNAL")
    assert "secret" not in answer.text


async def test_only_the_log_has_the_reason_why_a_response_makes_no_sense(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Confused(InventoryServicer):
        async def ReserveStock(self, request: Any, context: Any) -> Any:
            response = await super().ReserveStock(request, context)
            response.reservation.state = inventory_pb2.Reservation.STATE_UNSPECIFIED
            return response

    async with mesh(tmp_path, inventory_servicer=Confused) as shop:
        answer = await shop.order(("TEA-0001", 1))
        spans = await shop.spans(answer.trace_id)
    assert_problem(answer, 500, "INTERNAL")
    assert "UNSPECIFIED" not in answer.text
    assert "UNSPECIFIED" in caplog.text
    (root,) = [span for span in spans if span.name == "POST /v1/orders"]
    assert root.status.status_code is StatusCode.ERROR


async def test_the_details_of_a_backend_error_reach_the_client(tmp_path: Path) -> None:
    class FailingGetStock(InventoryServicer):
        async def GetStock(self, request: Any, context: Any) -> Any:
            raise OutOfStories("no more stories", number=1001)

    async with mesh(tmp_path, inventory_servicer=FailingGetStock) as shop:
        answer = await shop.get("/v1/products/TEA-0001")
    assert_problem(answer, 404, "OUT_OF_STORIES")
    assert answer.body["detail"] == "no more stories"
    assert (answer.body["domain"], answer.body["metadata"]) == ("test.aiomesh", {"number": "1001"})


async def test_the_violations_of_a_backend_error_reach_the_client(tmp_path: Path) -> None:
    class Particular(InventoryServicer):
        async def GetStock(self, request: Any, context: Any) -> Any:
            raise InvalidArgument("not so", violations=[FieldViolation("sku", "too common")])

    async with mesh(tmp_path, inventory_servicer=Particular) as shop:
        answer = await shop.get("/v1/products/TEA-0001")
    assert_problem(answer, 400, "INVALID_ARGUMENT")
    assert answer.body["errors"] == [{"field": "sku", "description": "too common"}]


async def test_the_address_of_a_backend_is_in_the_log_and_the_span_but_in_no_response(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with absent_server() as address:
        async with mesh(tmp_path, inventory_target=address, pricing_target=address) as shop:
            answers = [
                await shop.get("/v1/products/TEA-0001"),
                await shop.order(("TEA-0001", 1)),
                await shop.ask("POST", "/v1/orders/6f2b9c1e-8f3a-5c7e-9d1b-2a4c6e8f0a1b/commit"),
            ]
            spans = await shop.spans()
    host, _, port = address.partition(":")
    for answer in answers:
        assert_problem(answer, 503, "UNAVAILABLE")
        assert host not in answer.text
        assert port not in answer.text
    assert "inventory GetStock: a call to another service failed: UNAVAILABLE (" in caplog.text
    assert address in caplog.text
    # The first failure of a read cancels its other call.
    failed = [span for span in spans if (span.attributes or {}).get("rpc.response.status_code") == "UNAVAILABLE"]
    assert failed
    assert all(address in str(span.status.description) for span in failed)
