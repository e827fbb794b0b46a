"""Deletes what is left of orders that were not committed, some time after they ended.

Only the edge knows both halves of an order. It asks pricing for quotes whose orders are not known to be committed, asks
inventory what became of these orders, and tells pricing which quotes to keep and which to delete. Then inventory
deletes the reservations: in this order, a key that is used again finds no old price under a new reservation.

Several edges may do this at the same time: the services delete nothing that was created or used meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from random import random
from typing import TYPE_CHECKING, NoReturn

from api_edge.concurrency import result_or_error
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
    """Purges every `interval` seconds until cancelled, the first time earlier, so that edges take turns.

    Continues after any error; an outage is logged once. Its calls are not traced; a service that deletes something
    traces that itself.
    """
    await asyncio.sleep(interval * random())  # noqa: S311 - not a secret
    reachable = True
    while True:
        try:
            with unsampled():
                await purge(inventory, pricing, clock() - retention)
            reachable = True
        except ServiceError as error:
            if reachable:
                log.warning("cannot purge orders: %s", describe(error))
            reachable = False
        except Exception:
            log.exception("the purge of orders failed")
        await asyncio.sleep(interval)


async def purge(inventory: InventoryClient, pricing: PricingClient, before: datetime) -> None:
    """Deletes both halves of the orders that were released or expired and whose hold ended before a time.

    Also deletes older quotes without a reservation, which a crash left. A batch that fails does not stop the next
    ones, but then no reservation is deleted.

    Raises:
        ServiceError: of the listing, or of the last batch that failed.
    """
    failure: ServiceError | None = None
    page_token: str | None = ""
    while page_token is not None:
        with own_budget(BATCH_SECONDS):
            order_ids, next_page_token = await pricing.list_unsettled_quotes(before, page_token)
            page_token = next_page_token or None
            settled = await result_or_error(_settle(order_ids, inventory, pricing, before))
        failure = settled or failure
    if failure:
        raise failure
    deleted = True
    while deleted:
        with own_budget(BATCH_SECONDS):
            deleted = bool(await inventory.purge_reservations(before))


async def _settle(
    order_ids: Sequence[str], inventory: InventoryClient, pricing: PricingClient, before: datetime
) -> None:
    if not order_ids:
        return
    reservations, missing = await inventory.batch_get_reservations(order_ids)
    await pricing.settle_quotes(
        committed=[found.id for found in reservations if found.state is OrderState.COMMITTED],
        finished=[found.id for found in reservations if found.state in ENDED and found.expire_time < before],
        orphaned=missing,
        create_time_before=before,
    )
