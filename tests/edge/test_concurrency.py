"""Backend calls run concurrently, are cancelled when they are useless, and share one HTTP/2 connection per backend."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from inventory.servicer import InventoryServicer
from meshkit.errors import InvalidArgument, NotFound, Unavailable
from meshkit.telemetry import semconv
from pricing.servicer import PricingServicer
from tests.edge.mesh import assert_problem, mesh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    Hook = Callable[[], Awaitable[object]]


def servicers(inventory: Hook, pricing: Hook) -> dict[str, Any]:
    """The real servicers, which await a hook before each call that the edge makes concurrently."""

    class Inventory(InventoryServicer):
        async def GetStock(self, request: Any, context: Any) -> Any:
            await inventory()
            return await super().GetStock(request, context)

        async def BatchGetStock(self, request: Any, context: Any) -> Any:
            await inventory()
            return await super().BatchGetStock(request, context)

        async def ReserveStock(self, request: Any, context: Any) -> Any:
            await inventory()
            return await super().ReserveStock(request, context)

        async def GetReservation(self, request: Any, context: Any) -> Any:
            await inventory()
            return await super().GetReservation(request, context)

    class Pricing(PricingServicer):
        async def GetPrice(self, request: Any, context: Any) -> Any:
            await pricing()
            return await super().GetPrice(request, context)

        async def BatchGetPrices(self, request: Any, context: Any) -> Any:
            await pricing()
            return await super().BatchGetPrices(request, context)

        async def CreateQuote(self, request: Any, context: Any) -> Any:
            await pricing()
            return await super().CreateQuote(request, context)

        async def GetQuote(self, request: Any, context: Any) -> Any:
            await pricing()
            return await super().GetQuote(request, context)

    return {"inventory_servicer": Inventory, "pricing_servicer": Pricing}


class Meeting:
    """A hook that returns when both services have been called."""

    def __init__(self) -> None:
        self._barrier = asyncio.Barrier(2)

    async def __call__(self) -> None:
        await self._barrier.wait()


class Endless:
    """A hook that never returns, and records its cancellation."""

    def __init__(self) -> None:
        self.reached, self.cancelled = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def code(span: ReadableSpan) -> object:
    return (span.attributes or {})[semconv.RPC_RESPONSE_STATUS_CODE]


def clients(spans: list[ReadableSpan]) -> list[ReadableSpan]:
    """The spans of the edge's own calls, sorted by method."""
    calls = [span for span in spans if span.resource.attributes["service.name"] == "api_edge" and "/" in span.name]
    return sorted((span for span in calls if span.name.startswith("aiomesh.")), key=lambda span: span.name)


@pytest.mark.parametrize("path", ["/v1/products/TEA-0001", "/v1/products?sku=TEA-0001", "order", "/v1/orders/{id}"])
async def test_both_backends_work_on_one_request_at_the_same_time(tmp_path: Path, path: str) -> None:
    """Each backend waits until the other one is called, so sequential calls would never return."""
    meeting = Meeting()
    async with mesh(tmp_path, **servicers(meeting, meeting)) as shop:
        order = await shop.order(("TEA-0001", 1))
        answer = order if path == "order" else await shop.get(path.format(id=order.body["id"]))
        assert answer.status in {200, 201}
        stock, prices = clients(await shop.spans(answer.trace_id))
    assert stock.name.startswith("aiomesh.inventory.")
    assert prices.name.startswith("aiomesh.pricing.")
    assert max(stock.start_time or 0, prices.start_time or 0) < min(stock.end_time or 0, prices.end_time or 0)


@pytest.mark.parametrize("path", ["/v1/products/TEA-0001?strict=true", "/v1/products?sku=TEA-0001&strict=true"])
async def test_with_strict_a_failure_of_pricing_cancels_the_call_of_inventory(tmp_path: Path, path: str) -> None:
    stock = Endless()

    async def fail() -> None:
        await stock.reached.wait()
        raise NotFound("no such price")

    async with mesh(tmp_path, **servicers(stock, fail)) as shop:
        answer = await shop.get(path)
        assert_problem(answer, 404, "NOT_FOUND")
        await stock.cancelled.wait()
        inventory_call, pricing_call = clients(await shop.spans(answer.trace_id))
        (handler,) = shop.inventory.spans(inventory_call.name)
    assert (code(inventory_call), code(pricing_call)) == ("CANCELLED", "NOT_FOUND")
    assert code(handler) == "CANCELLED"
    assert {timing.partition(";")[0] for timing in answer.headers["Server-Timing"].split(", ")} == {
        "inventory", "pricing", "total",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "error", "status"),
    [
        ("/v1/products/TEA-0001", NotFound("no such stock"), 404),
        ("/v1/products?sku=TEA-0001", Unavailable("away"), 503),
    ],
)
async def test_a_failure_of_inventory_cancels_the_call_of_pricing(
    tmp_path: Path, path: str, error: Exception, status: int
) -> None:
    prices = Endless()

    async def fail() -> None:
        await prices.reached.wait()
        raise error

    async with mesh(tmp_path, **servicers(fail, prices)) as shop:
        answer = await shop.get(path)
        assert answer.status == status
        await prices.cancelled.wait()
        _, pricing_call = clients(await shop.spans(answer.trace_id))
    assert code(pricing_call) == "CANCELLED"


async def test_an_error_of_the_caller_cancels_the_other_call_even_without_strict(tmp_path: Path) -> None:
    stock = Endless()

    async def fail() -> None:
        await stock.reached.wait()
        raise InvalidArgument("not so")

    async with mesh(tmp_path, **servicers(stock, fail)) as shop:
        assert_problem(await shop.get("/v1/products/TEA-0001"), 400, "INVALID_ARGUMENT")
        await stock.cancelled.wait()


async def test_a_degrading_failure_of_pricing_does_not_cancel_the_call_of_inventory(tmp_path: Path) -> None:
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise Unavailable("away")

    async with mesh(tmp_path, **servicers(failed.wait, fail)) as shop:
        answer = await shop.get("/v1/products/TEA-0001")
    assert (answer.status, answer.body["price"]) == (200, None)


async def test_50_concurrent_requests_share_one_connection_per_backend(tmp_path: Path) -> None:
    """With baggage, reads share no calls."""
    barrier = asyncio.Barrier(100)
    async with mesh(tmp_path, **servicers(barrier.wait, barrier.wait)) as shop:
        headers = {"X-Request-Timeout-Ms": "15000", "baggage": "calls=own"}
        answers = await asyncio.gather(*(shop.get("/v1/products/TEA-0001", headers=headers) for _ in range(50)))
        await shop.spans()
        peers = {
            capture.service: {(span.attributes or {})[semconv.CLIENT_PORT] for span in calls(capture)}
            for capture in (shop.inventory, shop.pricing)
        }
        counts = [len(calls(capture)) for capture in (shop.inventory, shop.pricing)]
    assert {(answer.status, answer.body["price"] is None) for answer in answers} == {(200, False)}
    assert counts == [50, 50]
    assert {service: len(ports) for service, ports in peers.items()} == {"inventory": 1, "pricing": 1}


def calls(capture: Any) -> list[ReadableSpan]:
    return [span for span in capture.spans() if span.name.startswith("aiomesh.")]
