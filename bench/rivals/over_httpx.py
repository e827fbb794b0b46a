"""FastAPI that asks two JSON services by httpx, at the same time. `over_httpx.py edge PORT STOCK PRICE`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI, HTTPException

from bench.rivals.edge import PRODUCT, SECONDS, Currency, Quantity, arguments, serve
from bench.rivals.shop import product

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def build(stock: str, price: str) -> FastAPI:
    """The app; its backends are `host:port`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=SECONDS) as app.state.http:
            yield

    app = FastAPI(openapi_url=None, lifespan=lifespan)

    async def ask(url: str, **query: str | int) -> Any:
        try:
            response = await app.state.http.get(url, params=query)
        except httpx.HTTPError as error:
            raise HTTPException(503) from error
        return response.json() if response.status_code == 200 else None

    @app.get(PRODUCT)
    async def get_product(sku: str, currency: Currency = "EUR", quantity: Quantity = 1) -> dict[str, Any]:
        """A product: two requests at the same time."""
        found, cost = await asyncio.gather(
            ask(f"http://{stock}/stock/{sku}"),
            ask(f"http://{price}/price/{sku}", currency=currency, quantity=quantity),
        )
        if not found:
            raise HTTPException(404)
        return product(found, cost)

    return app


if __name__ == "__main__":
    _, own_port, backends = arguments()
    serve(build(*backends), own_port)
