"""A FastAPI app with a constant response: the cost of HTTP alone. `constant.py edge PORT`."""

from fastapi import FastAPI

from bench.rivals.edge import PRODUCT, Currency, Quantity, arguments, serve

app = FastAPI(openapi_url=None)

BODY: dict[str, object] = {
    "sku": "TEA-0001",
    "title": "Darjeeling First Flush, 100 g",
    "category": "tea",
    "stock": {"on_hand": 500, "reserved": 0, "available": 500, "version": 1},
    "price": {"currency": "EUR", "unit_price": "15.21", "quantity": 1, "total": "15.21"},
    "problems": [],
}


@app.get(PRODUCT)
async def get_product(sku: str, currency: Currency = "EUR", quantity: Quantity = 1) -> dict[str, object]:
    """The same product, whatever is asked."""
    del sku, currency, quantity
    return BODY


if __name__ == "__main__":
    serve(app, arguments()[1])
