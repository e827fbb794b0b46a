"""FastAPI on plain grpc.aio: no interceptors, no traces.

plain_grpc_aio.py edge PORT STOCK PRICE
plain_grpc_aio.py stock|price PORT FILE
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import uvloop
from fastapi import FastAPI, HTTPException

from aiomesh.inventory.v1 import inventory_service_pb2, inventory_service_pb2_grpc
from aiomesh.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc
from bench.rivals import shop
from bench.rivals.edge import PRODUCT, SECONDS, Currency, Quantity, arguments, serve
from bench.rivals.messages import price_response, price_values, stock_response, stock_values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Stocks(inventory_service_pb2_grpc.InventoryServiceServicer):
    """Answers GetStock alone."""

    def __init__(self, file: str) -> None:
        self._database = shop.connect(file)

    async def GetStock(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The stock of a SKU."""
        if found := shop.stock(self._database, request.sku):
            return stock_response(found)
        return await context.abort(grpc.StatusCode.NOT_FOUND, "no such SKU")


class Prices(pricing_service_pb2_grpc.PricingServiceServicer):
    """Answers GetPrice alone."""

    def __init__(self, file: str) -> None:
        self._database = shop.connect(file)

    async def GetPrice(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The price of some units of a SKU."""
        if cost := shop.price(self._database, request.sku, request.quantity, request.currency_code):
            return price_response(request.sku, cost)
        return await context.abort(grpc.StatusCode.NOT_FOUND, "no such SKU")


async def serve_backend(role: str, port: int, file: str) -> None:
    """Serves one of the two, until SIGTERM."""
    server = grpc.aio.server()
    if role == "stock":
        inventory_service_pb2_grpc.add_InventoryServiceServicer_to_server(Stocks(file), server)  # type: ignore[abstract] # the other methods are UNIMPLEMENTED
    else:
        pricing_service_pb2_grpc.add_PricingServiceServicer_to_server(Prices(file), server)  # type: ignore[abstract] # as above
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def build(stock: str, price: str) -> FastAPI:
    """The app; its backends are `host:port`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(stock) as stocks, grpc.aio.insecure_channel(price) as prices:
            app.state.inventory = inventory_service_pb2_grpc.InventoryServiceStub(stocks)
            app.state.pricing = pricing_service_pb2_grpc.PricingServiceStub(prices)
            yield

    app = FastAPI(openapi_url=None, lifespan=lifespan)

    @app.get(PRODUCT)
    async def get_product(sku: str, currency: Currency = "EUR", quantity: Quantity = 1) -> dict[str, Any]:
        """A product: two calls at the same time."""
        asked = pricing_service_pb2.GetPriceRequest(sku=sku, quantity=quantity, currency_code=currency)
        try:
            found, cost = await asyncio.gather(
                app.state.inventory.GetStock(inventory_service_pb2.GetStockRequest(sku=sku), timeout=SECONDS),
                app.state.pricing.GetPrice(asked, timeout=SECONDS),
            )
        except grpc.aio.AioRpcError as error:
            raise HTTPException(404 if error.code() is grpc.StatusCode.NOT_FOUND else 503) from error
        return shop.product(stock_values(found.stock), price_values(cost.price))

    return app


if __name__ == "__main__":
    own_role, own_port, rest = arguments()
    if own_role == "edge":
        serve(build(*rest), own_port)
    else:
        uvloop.run(serve_backend(own_role, own_port, *rest))
