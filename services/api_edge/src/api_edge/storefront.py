"""The storefront's logic: concurrent reads that degrade, and orders that never do.

Orders. The edge stores nothing. An order's id is derived from its idempotency key and names both its halves, the
reservation in inventory and the quote in pricing; so any replica finds it, and a repeated request finds itself.
`place_order` waits for both halves and then decides:

                 quoted            refused           unknown
    reserved     returns order     undoes R          undoes R and Q?
    refused      undoes Q          -                 undoes Q?
    unknown      undoes R? and Q   undoes R?         undoes R? and Q?

R is the reservation and Q the quote; with a question mark it may exist, because its service did not answer. All but
the first cell then raise an error: inventory's, or pricing's if inventory reserved. They wait for the undo of what
exists, but not for a service that is away.

Two orders may share a key and get one half each. Then neither is returned, and the two halves are not an order, because
their fingerprints differ.

An undo takes back one attempt. A half stays while another attempt shares it, so no order that was returned disappears.
What cannot be undone expires, and `api_edge.purge` deletes it. docs/orders.md has the whole life of an order.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
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

OUTCOME_UNKNOWN = (Unavailable, DeadlineExceeded, ResourceExhausted, Internal, Unknown, Cancelled)
"""The kinds of errors after which a half of an order may exist anyway."""

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
        end = time.monotonic() + FINISH_SECONDS
        while self._tasks and (left := end - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left)

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
            self._price(line, currency, strict=strict),
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
            error.fields.clear()  # the other order's id
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
        """Confirms the order's prices and takes its units out of the warehouse; a repeat returns the same.

        Raises:
            UnknownOrder: one half or both do not exist.
            FailedPrecondition: it was released or has expired.
            ServiceError: its quote could not be confirmed (Unavailable), or inventory failed; it may be tried again.
        """
        id_, confirm = _named(order_id), self._pricing.confirm_quote
        ending = self._end_order(id_, confirm, self._inventory.commit_reservation)
        return await shielded(self._start(ending))

    async def release_order(self, order_id: str) -> Order:
        """Gives the order's units back; a repeat returns the same.

        Raises:
            UnknownOrder: one half or both do not exist.
            FailedPrecondition: it was committed or has expired.
            ServiceError: its quote could not be read (Unavailable), or inventory failed; it may be tried again.
        """
        id_, read = _named(order_id), self._pricing.get_quote
        ending = self._end_order(id_, read, self._inventory.release_reservation)
        return await shielded(self._start(ending))

    async def _price(self, line: Line, currency: str, *, strict: bool) -> Price | Degradation:
        return await or_degradation(self._pricing.get_price(line, currency), PRICING, strict=strict)

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
            result_or_error(self._pricing.create_quote(id_, attempt_id, lines, currency, digest)),
        )
        if isinstance(reservation, ServiceError):
            await self._undo(id_, attempt_id, reservation, quote)
            raise reservation
        if isinstance(quote, ServiceError):
            await self._undo(id_, attempt_id, reservation, quote)
            raise quote
        return Order(reservation, quote)

    async def _undo(
        self, id_: str, attempt_id: str, reservation: Reservation | ServiceError, quote: Quote | ServiceError
    ) -> None:
        """Takes back an attempt that is returned to no client; waits only for services that have answered."""
        undos = {
            self._start(_undo_half(undo(id_, attempt_id), id_)): half
            for half, undo in (
                (reservation, self._inventory.undo_reserve_stock),
                (quote, self._pricing.undo_create_quote),
            )
            if not isinstance(half, ServiceError) or isinstance(half, OUTCOME_UNKNOWN)
        }
        made = [task for task, half in undos.items() if not isinstance(half, ServiceError)]
        if made:
            await asyncio.wait(made, timeout=remaining())

    async def _end_order(
        self,
        id_: str,
        use_quote: Callable[[str], Awaitable[Quote]],
        end: Callable[[str, str], Awaitable[Reservation]],
    ) -> Order:
        """Confirms or reads the quote, then ends the reservation that belongs to it."""
        try:
            quote = await _quote(use_quote(id_))
            return Order(await end(id_, quote.fingerprint), quote)
        except NotFound as error:
            raise UnknownOrder(id_) from error


async def _quote(call: Awaitable[Quote]) -> Quote:
    """The order's quote; every failure but its absence is Unavailable, because no unit has been moved yet."""
    try:
        return await call
    except NotFound:
        raise
    except ServiceError as error:
        raise Unavailable(f"pricing cannot use the order's quote now; try again: {error.message}") from error


async def _undo_half(undo: Awaitable[None], id_: str) -> None:
    try:
        with own_budget(UNDO_SECONDS):
            await undo
    except ServiceError as error:
        log.info("a half of order %s could not be undone; if it exists, it will expire: %s", id_, describe(error))


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
