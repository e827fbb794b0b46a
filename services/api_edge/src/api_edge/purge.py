"""Deletes what is left of orders that were not committed, some time after they ended.

Only the edge knows both halves of an order. It asks pricing for quotes whose orders are not known to be committed, asks
inventory what became of these orders, and tells pricing which quotes to keep and which to delete. Then inventory
deletes the reservations: in this order, a key that is used again finds no old price under a new reservation.

Several edges may do this at the same time: the services delete nothing that was created or used meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from api_edge.domain import OrderState
from meshkit.deadline import own_budget
from meshkit.errors import ServiceError, describe
from meshkit.telemetry.unsampled import unsampled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from api_edge.clients import InventoryClient, PricingClient

log = logging.getLogger("api_edge.purge")

BATCH_SECONDS = 10.0
"""The budget of the calls for one batch of orders."""

ENDED = {OrderState.RELEASED, OrderState.EXPIRED}


async def purge_forever(
    inventory: InventoryClient,
    pricing: PricingClient,
    *,
    retention: timedelta,
    interval: float,
    clock: Callable[[], datetime],
) -> NoReturn:
    """Purges every `interval` seconds until cancelled. Continues after an outage, which it logs once.

    Its calls are not traced; a service that deletes something traces that itself.
    """
    reachable = True
    while True:
        await asyncio.sleep(interval)
        try:
            with unsampled():
                await purge(inventory, pricing, clock() - retention)
            reachable = True
        except ServiceError as error:
            if reachable:
                log.warning("cannot purge orders: %s", describe(error))
            reachable = False


async def purge(inventory: InventoryClient, pricing: PricingClient, before: datetime) -> None:
    """Deletes both halves of the orders that were released or expired and whose hold ended before a time.

    Also deletes quotes without a reservation that were not used since, which a crash left. Raises ServiceErrors.
    """
    page_token: str | None = ""
    while page_token is not None:
        with own_budget(BATCH_SECONDS):
            order_ids, page_token = await pricing.list_unsettled_quotes(before, page_token)
            if order_ids:
                await _settle(order_ids, inventory, pricing, before)
        page_token = page_token or None
    deleted = True
    while deleted:
        with own_budget(BATCH_SECONDS):
            deleted = bool(await inventory.purge_reservations(before))


async def _settle(
    order_ids: Sequence[str], inventory: InventoryClient, pricing: PricingClient, before: datetime
) -> None:
    reservations, missing = await inventory.batch_get_reservations(order_ids)
    await pricing.settle_quotes(
        committed=[found.id for found in reservations if found.state is OrderState.COMMITTED],
        finished=[found.id for found in reservations if found.state in ENDED and found.expire_time < before],
        orphaned=missing,
        create_time_before=before,
    )
