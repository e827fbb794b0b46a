"""A backend that is full: products lack its part, and orders are refused and leave nothing."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pricing.servicer import PricingServicer
from tests.edge.mesh import assert_problem, mesh

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_full_pricing_degrades_products_and_refuses_orders_with_retry_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, opened = asyncio.Event(), asyncio.Event()

    class SlowPricing(PricingServicer):
        async def GetPrice(self, request: Any, context: Any) -> Any:
            entered.set()
            await opened.wait()
            return await super().GetPrice(request, context)

    monkeypatch.setenv("PRICING_MAX_PENDING", "1")
    async with mesh(tmp_path, pricing_servicer=SlowPricing) as shop:
        held = asyncio.create_task(shop.get("/v1/products/TEA-0001"))
        await entered.wait()
        product = await shop.get("/v1/products/TEA-0004")
        order = await shop.order(("TEA-0004", 1), key="full")
        opened.set()
        assert (await held).body["price"]
        repeated = await shop.order(("TEA-0004", 1), key="full")
        stock = await shop.stock("TEA-0004")
    assert (product.status, product.body["price"]) == (200, None)
    assert [problem["reason"] for problem in product.body["problems"]] == ["RESOURCE_EXHAUSTED"]
    assert_problem(order, 429, "RESOURCE_EXHAUSTED")
    assert order.headers["Retry-After"] == "1"
    assert repeated.status == 201, "the refused order left nothing that its repeat would meet"
    assert stock["reserved"] == 1
