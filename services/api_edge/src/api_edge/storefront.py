"""The storefront's logic: concurrent reads that degrade, and orders that never do.

Orders. The edge stores nothing. An order's id is derived from its idempotency key and names both its halves, the
reservation in inventory and the quote in pricing; so any replica finds it, and a repeated request finds itself.
`place_order` waits for both halves and then decides:

    reserved, quoted    returns the order
    reserved, no quote  undoes this attempt's reservation; raises the quote's error
    refused, quoted     raises inventory's error; a quote alone reserves nothing and needs no undo
    refused, no quote   raises inventory's error
    unknown, either     starts an undo without waiting for it; raises inventory's error

Two orders may share a key and get one half each. Then neither is returned, and the two halves are not an order, because
their fingerprints differ.

An undo takes back one attempt. The reservation stays while another attempt shares it, so no order that was returned
disappears. A reservation that cannot be undone expires.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from api_edge import rules
from api_edge.clients import PRICING
from api_edge.concurrency import concurrently, result_or_error, shielded
from api_edge.domain import Degradation, Line, Order, Product, UnknownOrder, UnknownSku, UnpricedSku, degradation
from api_edge.spans import set_order_id
from meshkit.deadline import own_budget, remaining
from meshkit.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    Internal,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Unknown,
    describe,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from api_edge.clients import InventoryClient, PricingClient
    from api_edge.domain import Price, Quote, Reservation, Stock

log = logging.getLogger("api_edge.storefront")

T = TypeVar("T")

DEGRADING = (Unavailable, DeadlineExceeded, ResourceExhausted, Internal, Unknown, NotFound, Cancelled)
"""The kinds of errors of a service that leave a product without its part; other kinds are the caller's mistakes."""

OUTCOME_UNKNOWN = (Unavailable, DeadlineExceeded, Internal, Unknown, Cancelled)
"""The kinds of errors after which a reservation may exist anyway."""

UNDO_SECONDS = 1.0
"""The budget of an undo, independent of the request's."""

FINISH_SECONDS = 1.0
"""How long the end of the process waits for orders and undos in flight."""

KEY_REUSED = "This Idempotency-Key was already used for a different order; use a new key"


class Storefront:
    """Products and orders, for every protocol of the edge. Errors are ServiceErrors."""

    def __init__(self, inventory: InventoryClient, pricing: PricingClient) -> None:
        self._inventory = inventory
        self._pricing = pricing
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Waits up to FINISH_SECONDS for orders and undos that outlived their requests."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    async def product(self, line: Line, currency: str, *, strict: bool) -> Product:
        """One product with the price of some units. With `strict` a missing price is an error.

        Raises:
            InvalidRequest, UnknownCurrency: as the rules say.
            NotFound: inventory does not know the SKU.
            ServiceError: inventory failed; or pricing did, if `strict` or the error is the caller's.
        """
        rules.check_product(line, currency)
        stock, price = await concurrently(
            self._inventory.get_stock(line.sku),
            or_degradation(self._pricing.get_price(line, currency), PRICING, strict=strict),
        )
        return _product(stock, price)

    async def products(self, skus: Sequence[str], currency: str, quantity: int, *, strict: bool) -> list[Product]:
        """The products of the SKUs, in their order.

        Raises:
            InvalidRequest, UnknownCurrency: as the rules say.
            UnknownSku: one of them does not exist.
            ServiceError: as `product`.
        """
        rules.check_products(skus, quantity, currency)
        lines = [Line(sku, quantity) for sku in skus]
        (stocks, missing), prices = await concurrently(
            self._inventory.batch_get_stock(skus), self._prices(lines, currency, strict=strict)
        )
        if missing:
            raise UnknownSku(missing)
        return [_batch_product(stock, prices, strict=strict) for stock in stocks]

    async def page(
        self, page_size: int, page_token: str, currency: str, quantity: int, *, strict: bool
    ) -> tuple[list[Product], str]:
        """One page of all products, and the token of the next.

        Raises:
            InvalidRequest, UnknownCurrency: as the rules say.
            InvalidArgument: inventory did not issue the token.
            ServiceError: as `product`.
        """
        rules.check_page(page_size, quantity, currency)
        stocks, next_page_token = await self._inventory.list_stock(page_size, page_token)
        lines = [Line(stock.sku, quantity) for stock in stocks]
        prices = await self._prices(lines, currency, strict=strict) if lines else {}
        return [_batch_product(stock, prices, strict=strict) for stock in stocks], next_page_token

    async def place_order(self, key: str, lines: Sequence[Line], currency: str) -> Order:
        """Reserves and quotes the lines under the id that belongs to the idempotency key.

        Once started it finishes, even if its caller disconnects. A repeat returns the order as it is now.

        Raises:
            InvalidIdempotencyKey, InvalidRequest, UnknownCurrency: as the rules say.
            AlreadyExists: the key stands for another order.
            ServiceError: nothing was ordered; it may be tried again with the same key.
        """
        rules.check_order(key, lines, currency)
        id_, of_another_order = rules.order_id(key), False
        try:
            return await shielded(self._start(self._place_order(id_, lines, currency)))
        except AlreadyExists as error:
            of_another_order = True
            error.message = KEY_REUSED  # the backends' own text speaks of a request id
            raise
        finally:  # an attribute cannot be taken back
            if not of_another_order:
                set_order_id(id_)

    async def order(self, order_id: str) -> Order:
        """An order as it is now.

        Raises:
            UnknownOrder: one half or both do not exist.
            ServiceError: one half cannot be read.
        """
        id_ = _named(order_id)
        try:
            reservation, quote = await concurrently(self._inventory.get_reservation(id_), self._pricing.get_quote(id_))
        except NotFound as error:
            raise UnknownOrder(id_) from error
        if reservation.fingerprint != quote.fingerprint:
            raise UnknownOrder(id_)
        return Order(reservation, quote)

    async def commit_order(self, order_id: str) -> Order:
        """Takes the order's units out of the warehouse; a repeat returns the same.

        Raises:
            UnknownOrder: one half or both do not exist.
            FailedPrecondition: it was released or has expired.
            ServiceError: its quote could not be read (Unavailable), or inventory failed; it may be tried again.
        """
        ending = self._end_order(_named(order_id), self._inventory.commit_reservation)
        return await shielded(self._start(ending))

    async def release_order(self, order_id: str) -> Order:
        """Gives the order's units back; a repeat returns the same.

        Raises:
            UnknownOrder: one half or both do not exist.
            FailedPrecondition: it was committed or has expired.
            ServiceError: its quote could not be read (Unavailable), or inventory failed; it may be tried again.
        """
        ending = self._end_order(_named(order_id), self._inventory.release_reservation)
        return await shielded(self._start(ending))

    async def _prices(self, lines: Sequence[Line], currency: str, *, strict: bool) -> dict[str, Price] | Degradation:
        return await or_degradation(self._pricing.batch_get_prices(lines, currency), PRICING, strict=strict)

    def _start(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        """Starts work that must not stop half-way, even if its request is cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _place_order(self, id_: str, lines: Sequence[Line], currency: str) -> Order:
        attempt_id, digest = str(uuid.uuid4()), rules.fingerprint(lines, currency)
        reservation, quote = await asyncio.gather(
            result_or_error(self._inventory.reserve_stock(id_, attempt_id, lines, digest)),
            result_or_error(self._pricing.create_quote(id_, lines, currency, digest)),
        )
        if isinstance(reservation, ServiceError):
            if isinstance(reservation, OUTCOME_UNKNOWN):  # no time to wait for a service that is away
                self._start(self._undo(id_, attempt_id))
            raise reservation
        if isinstance(quote, ServiceError):
            await asyncio.wait({self._start(self._undo(id_, attempt_id))}, timeout=remaining())
            raise quote
        return Order(reservation, quote)

    async def _undo(self, id_: str, attempt_id: str) -> None:
        """Takes back an attempt that was returned to no client."""
        try:
            with own_budget(UNDO_SECONDS):
                await self._inventory.undo_reserve_stock(id_, attempt_id)
        except ServiceError as error:
            log.info("order %s could not be undone and its reservation, if any, will expire: %s", id_, describe(error))

    async def _end_order(self, id_: str, end: Callable[[str, str], Awaitable[Reservation]]) -> Order:
        try:
            quote = await self._quote(id_)
            return Order(await end(id_, quote.fingerprint), quote)
        except NotFound as error:
            raise UnknownOrder(id_) from error

    async def _quote(self, id_: str) -> Quote:
        """The order's quote; every failure but its absence is Unavailable, for nothing has been changed yet."""
        try:
            return await self._pricing.get_quote(id_)
        except NotFound:
            raise
        except ServiceError as error:
            raise Unavailable(f"the order's quote cannot be read now: {error.message}") from error


def _named(order_id: str) -> str:
    """The id of the order that a request names, as it is stored. Raises UnknownOrder."""
    id_ = rules.canonical_id(order_id)
    set_order_id(id_)
    return id_


async def or_degradation(call: Awaitable[T], service: str, *, strict: bool) -> T | Degradation:
    """A service's answer, or why there is none if that only degrades the product."""
    try:
        return await call
    except DEGRADING as error:
        if strict:
            raise
        return degradation(service, error)


def _product(stock: Stock, price: Price | Degradation) -> Product:
    return Product(stock, None, (price,)) if isinstance(price, Degradation) else Product(stock, price)


def _batch_product(stock: Stock, prices: dict[str, Price] | Degradation, *, strict: bool) -> Product:
    if isinstance(prices, Degradation):
        return _product(stock, prices)
    if price := prices.get(stock.sku):
        return Product(stock, price)
    missing = UnpricedSku(stock.sku)
    if strict:
        raise missing
    return _product(stock, degradation(PRICING, missing))
