"""The storefront's logic: concurrent reads that degrade, and orders that never do.

Orders. The edge stores nothing. An order's id is derived from its idempotency key and names both its halves, the
reservation in inventory and the quote in pricing; so any replica finds it, and a repeated request finds itself.
`place_order` waits for both halves and then decides:

    reserved, quoted    the order is answered
    reserved, no quote  this attempt's reservation is undone; the quote's error is answered
    refused, quoted     a quote alone reserves nothing and needs no undo; inventory's error is answered
    refused, no quote   inventory's error is answered

Two orders may share a key and win one half each. Neither is answered then, and the halves together are no order: they
bear different fingerprints.

An undo takes back one attempt. The reservation stays as long as any other attempt has touched it, so no order that
somebody was answered disappears; what cannot be undone expires.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from api_edge.clients import PRICING
from api_edge.domain import Degradation, Line, Order, Product, UnknownOrder, UnknownSku, UnpricedSku, degradation
from meshkit.deadline import own_budget, remaining
from meshkit.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from api_edge.clients import InventoryClient, PricingClient
    from api_edge.domain import Price, Quote, Reservation, Stock

log = logging.getLogger("api_edge.storefront")

First = TypeVar("First")
Second = TypeVar("Second")
T = TypeVar("T")

DEGRADING = (Unavailable, DeadlineExceeded, ResourceExhausted, Internal, Unknown, NotFound, Cancelled)
"""The kinds of pricing's errors that leave a product without a price; any other one is the caller's."""

OUTCOME_UNKNOWN = (Unavailable, DeadlineExceeded, Internal, Unknown, Cancelled)
"""The kinds of errors after which a reservation may exist all the same."""

UNDO_SECONDS = 1.0
"""The budget of an undo, whatever is left of the request's."""

FINISH_SECONDS = 1.0
"""How long the end of the process waits for what was begun."""

ORDERS = uuid.UUID("6f6d0d1c-5d3b-5a53-8a51-6a6f2f9b7c11")
"""The namespace of order ids (UUIDv5, RFC 9562)."""


class Storefront:
    """What the edge offers, over whatever protocol: products and orders. Errors are ServiceErrors."""

    def __init__(self, inventory: InventoryClient, pricing: PricingClient) -> None:
        self._inventory = inventory
        self._pricing = pricing
        self._begun: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Waits, but not for ever, for orders and undos that outlived their requests."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                while self._begun:
                    await asyncio.wait(self._begun)

    async def product(self, line: Line, currency: str, *, strict: bool) -> Product:
        """One product with the price of some units. With `strict` a missing price is an error.

        Raises:
            NotFound: inventory does not know the SKU.
            ServiceError: inventory failed; or pricing did, if `strict` or the error is the caller's.
        """
        stock, price = await concurrently(
            self._inventory.get_stock(line.sku),
            priced(self._pricing.get_price(line, currency), strict=strict),
        )
        return _product(stock, price)

    async def products(self, skus: Sequence[str], currency: str, quantity: int, *, strict: bool) -> list[Product]:
        """The products asked for, in that order.

        Raises:
            UnknownSku: one of them does not exist.
            ServiceError: as `product`.
        """
        lines = [Line(sku, quantity) for sku in skus]
        (stocks, missing), prices = await concurrently(
            self._inventory.batch_get_stock(skus),
            priced(self._pricing.batch_get_prices(lines, currency), strict=strict),
        )
        if missing:
            raise UnknownSku(missing)
        return [_listed(stock, prices, strict=strict) for stock in stocks]

    async def page(
        self, page_size: int, page_token: str, currency: str, quantity: int, *, strict: bool
    ) -> tuple[list[Product], str]:
        """One page of all products, and the token of the next.

        Raises:
            InvalidArgument: the token is not one that was given.
            ServiceError: as `product`.
        """
        stocks, next_page_token = await self._inventory.list_stock(page_size, page_token)
        lines = [Line(stock.sku, quantity) for stock in stocks]
        prices = await priced(self._pricing.batch_get_prices(lines, currency), strict=strict) if lines else {}
        return [_listed(stock, prices, strict=strict) for stock in stocks], next_page_token

    async def place_order(self, key: str, lines: Sequence[Line], currency: str) -> Order:
        """Reserves and quotes the lines under the id that belongs to the idempotency key.

        Once begun it finishes, though its caller may have gone. A repeat answers the order as it is now.

        Raises:
            AlreadyExists: the key stands for another order.
            ServiceError: nothing was ordered; it may be tried again with the same key.
        """
        return await finished(self._begin(self._place_order(order_id(key), lines, currency)))

    async def order(self, order_id: str) -> Order:
        """An order as it is now.

        Raises:
            UnknownOrder: one half or both do not exist.
            ServiceError: one half cannot be read.
        """
        try:
            halves = await concurrently(self._inventory.get_reservation(order_id), self._pricing.get_quote(order_id))
        except NotFound as error:
            raise UnknownOrder(order_id) from error
        reservation, quote = halves
        if reservation.fingerprint != quote.fingerprint:
            raise UnknownOrder(order_id)
        return Order(reservation, quote)

    async def commit_order(self, order_id: str) -> Order:
        """Takes the order's units out of the warehouse; again answers the same.

        Raises:
            UnknownOrder: one half or both do not exist.
            FailedPrecondition: it was released or has expired.
            ServiceError: its quote could not be read (Unavailable), or inventory failed; it may be tried again.
        """
        return await finished(self._begin(self._end_order(order_id, self._inventory.commit_reservation)))

    async def release_order(self, order_id: str) -> Order:
        """Gives the order's units back; again answers the same.

        Raises:
            UnknownOrder: one half or both do not exist.
            FailedPrecondition: it was committed or has expired.
            ServiceError: its quote could not be read (Unavailable), or inventory failed; it may be tried again.
        """
        return await finished(self._begin(self._end_order(order_id, self._inventory.release_reservation)))

    def _begin(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        """Starts work that must not stop half-way, whoever goes."""
        task = asyncio.create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return task

    async def _place_order(self, id_: str, lines: Sequence[Line], currency: str) -> Order:
        attempt_id, digest = str(uuid.uuid4()), fingerprint(lines, currency)
        reservation, quote = await asyncio.gather(
            outcome(self._inventory.reserve_stock(id_, attempt_id, lines, digest)),
            outcome(self._pricing.create_quote(id_, lines, currency, digest)),
        )
        if isinstance(reservation, ServiceError):
            if isinstance(reservation, OUTCOME_UNKNOWN):  # its answer cannot wait for a service that gives none
                self._begin(self._undo(id_, attempt_id))
            raise reservation
        if isinstance(quote, ServiceError):
            await asyncio.wait({self._begin(self._undo(id_, attempt_id))}, timeout=remaining())
            raise quote
        return Order(reservation, quote)

    async def _undo(self, id_: str, attempt_id: str) -> None:
        """Takes back an attempt at an order that nobody is answered."""
        try:
            with own_budget(UNDO_SECONDS):
                await self._inventory.undo_reserve_stock(id_, attempt_id)
        except ServiceError as error:
            log.info("order %s: what was reserved, if anything was, is left to expire: %s", id_, error)

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


async def concurrently(
    first: Coroutine[None, None, First], second: Coroutine[None, None, Second]
) -> tuple[First, Second]:
    """Both results; the first failure cancels the other one and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            one, other = group.create_task(first), group.create_task(second)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return one.result(), other.result()


async def outcome(call: Awaitable[T]) -> T | ServiceError:
    """The call's result or its error, for whoever must know both halves before deciding."""
    try:
        return await call
    except ServiceError as error:
        return error


async def priced(call: Awaitable[T], *, strict: bool) -> T | Degradation:
    """Pricing's answer, or why there is none if that only degrades the product."""
    try:
        return await call
    except DEGRADING as error:
        if strict:
            raise
        return degradation(PRICING, error)


async def finished(task: asyncio.Task[T]) -> T:
    """The result of work that must not stop half-way: a caller that is cancelled leaves it to end by itself."""
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.add_done_callback(_log_failure)
        raise
    return task.result()


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.info("what a request began failed after its caller had gone: %s", error)


def order_id(key: str) -> str:
    """The id of the order that an idempotency key stands for."""
    return str(uuid.uuid5(ORDERS, key))


def fingerprint(lines: Sequence[Line], currency: str) -> str:
    """A digest of a whole order, the same for the same lines in the same order and the same currency."""
    content = json.dumps([currency, [[line.sku, line.quantity] for line in lines]])
    return hashlib.sha256(content.encode()).hexdigest()


def _product(stock: Stock, price: Price | Degradation) -> Product:
    return Product(stock, None, (price,)) if isinstance(price, Degradation) else Product(stock, price)


def _listed(stock: Stock, prices: dict[str, Price] | Degradation, *, strict: bool) -> Product:
    if isinstance(prices, Degradation):
        return _product(stock, prices)
    if price := prices.get(stock.sku):
        return Product(stock, price)
    missing = UnpricedSku(stock.sku)
    if strict:
        raise missing
    return _product(stock, degradation(PRICING, missing))
