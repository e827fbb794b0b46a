"""Returns the units of expired reservations to stock while the process runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from inventory.domain import DatabaseUnavailable
from meshkit.errors import describe

if TYPE_CHECKING:
    from inventory.store import InventoryStore

log = logging.getLogger("inventory.sweeper")


async def sweep_forever(store: InventoryStore, interval: float) -> NoReturn:
    """Sweeps every `interval` seconds until cancelled; several processes may do so on one database.

    Continues after a database outage, which it logs once.
    """
    reachable = True
    while True:
        await asyncio.sleep(interval)
        try:
            await _sweep_all(store)
            reachable = True
        except DatabaseUnavailable as error:
            if reachable:
                log.warning("cannot sweep expired reservations: %s", describe(error))
            reachable = False


async def _sweep_all(store: InventoryStore) -> None:
    while swept := await store.sweep():
        log.info("swept expired reservations", extra={"reservations": swept})
