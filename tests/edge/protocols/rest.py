"""The client of the REST API."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from api_edge.domain import (
    Amount,
    Degradation,
    Order,
    OrderState,
    Price,
    PricedLine,
    Product,
    Quote,
    Reservation,
    Stock,
)
from meshkit.errors import FieldViolation, mapping_of_code
from tests.edge.protocols.client import SECONDS, Details, Failure, Placed, Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from api_edge.domain import Line
    from tests.edge.mesh import Answer, Mesh

Json = Any


class RestClient:
    """Calls the edge over HTTP. See ShopClient."""

    invalid: int | str = 422

    def __init__(self, shop: Mesh) -> None:
        self.trace = Trace()
        self._shop = shop

    def status_of(self, code: str) -> int | str:
        return mapping_of_code(code).http

    def delay_of(self, seconds: float) -> float:
        return float(math.ceil(seconds))

    async def product(self, sku: str, **parameters: Any) -> Product:
        return product((await self._ask("GET", f"/v1/products/{quote(sku, safe='')}", parameters)).body)

    async def products(self, skus: Sequence[str] = (), **parameters: Any) -> tuple[list[Product], str]:
        page = (await self._ask("GET", "/v1/products", {"sku": skus, **parameters})).body
        return [product(each) for each in page["products"]], page["next_page_token"]

    async def place_order(
        self, lines: Sequence[Line], *, keys: Sequence[str] = (), currency: str | None = None
    ) -> Placed:
        body: Json = {"lines": [line._asdict() for line in lines]} | ({"currency": currency} if currency else {})
        headers = [("Idempotency-Key", key) for key in keys]
        answer = await self._ask("POST", "/v1/orders", headers=headers, json=body)
        return Placed(order(answer.body), answer.headers["Idempotency-Key"])

    async def order(self, order_id: str) -> Order:
        return order((await self._ask("GET", f"/v1/orders/{order_id}")).body)

    async def commit_order(self, order_id: str) -> Order:
        return order((await self._ask("POST", f"/v1/orders/{order_id}/commit")).body)

    async def release_order(self, order_id: str) -> Order:
        return order((await self._ask("DELETE", f"/v1/orders/{order_id}")).body)

    async def _ask(
        self, method: str, path: str, parameters: dict[str, Any] | None = None, *, headers: Any = (), **body: Any
    ) -> Answer:
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        query = f"?{urlencode(given, doseq=True)}" if given else ""
        limit = ("X-Request-Timeout-Ms", f"{SECONDS * 1000}")
        headers = [*headers, limit, ("traceparent", self.trace.begin())]
        answer = await self._shop.ask(method, path + query, headers=headers, **body)
        if answer.status >= 400:
            raise Failure(answer.status, details(answer))
        return answer


def details(answer: Answer) -> Details:
    """The error in a problem."""
    problem, retry = answer.body, answer.headers.get("Retry-After")
    return Details(
        message=problem["detail"],
        reason=problem["reason"],
        domain=problem["domain"],
        metadata=problem["metadata"],
        violations=tuple(FieldViolation(**each) for each in problem["errors"]),
        retry_after=None if retry is None else float(retry),
    )


def product(body: Json) -> Product:
    """A product of the domain."""
    stock, price = body["stock"], body["price"]
    return Product(
        Stock(body["sku"], body["title"], body["category"], **stock),
        price
        and Price(
            price["quantity"], amount(price["currency"], price["unit_price"]), amount(price["currency"], price["total"])
        ),
        tuple(Degradation(**each) for each in body["problems"]),
    )


def order(body: Json) -> Order:
    """An order of the domain; no protocol shows its fingerprint."""
    currency = body["currency"]
    lines = [
        PricedLine(line["sku"], line["quantity"], amount(currency, line["unit_price"]), amount(currency, line["total"]))
        for line in body["lines"]
    ]
    return Order(
        Reservation(body["id"], OrderState(body["state"]), datetime.fromisoformat(body["expire_time"]), ""),
        Quote(currency, tuple(lines), amount(currency, body["total"]), ""),
    )


def amount(currency: str, text: str) -> Amount:
    """An amount of the domain."""
    return Amount(currency, int(text.replace(".", "")), len(text.partition(".")[2]))
