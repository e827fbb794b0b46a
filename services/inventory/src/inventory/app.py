"""The composition root of inventory: the only module that knows all the concrete classes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiomesh.inventory.v1.inventory_service_pb2 import DESCRIPTOR
from aiomesh.inventory.v1.inventory_service_pb2_grpc import add_InventoryServiceServicer_to_server
from inventory.domain import DatabaseUnavailable
from inventory.seed import seed
from inventory.servicer import InventoryServicer
from inventory.store import InventoryStore
from inventory.sweeper import sweep_forever
from meshkit.api import Api
from meshkit.database import check_database, open_database
from meshkit.service import grpc_app, utc_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from inventory.settings import Settings
    from meshkit.service import GrpcApp
    from meshkit.telemetry import Telemetry

INVENTORY = Api(DESCRIPTOR.services_by_name["InventoryService"])
MIGRATIONS = Path(__file__).with_name("migrations")


@asynccontextmanager
async def build(
    settings: Settings,
    telemetry: Telemetry,
    *,
    clock: Callable[[], datetime] = utc_now,
    servicer: Callable[[InventoryStore], InventoryServicer] = InventoryServicer,
) -> AsyncIterator[GrpcApp]:
    """The inventory service and its database, which is closed at the end of the block.

    Args:
        settings: those of the process.
        telemetry: that of the process; the caller shuts it down.
        clock: returns the current time, an aware datetime.
        servicer: creates the servicer from the store.
    """
    tracer = telemetry.tracer_provider.get_tracer("inventory")
    async with open_database(settings.database_url, DatabaseUnavailable, tracer, telemetry.meter) as database:
        store = InventoryStore(database, clock, timedelta(seconds=settings.reservation_ttl_seconds), tracer)
        yield grpc_app(
            INVENTORY,
            partial(add_InventoryServiceServicer_to_server, servicer(store)),
            settings,
            telemetry,
            check=partial(check_database, database, MIGRATIONS, seed),
            background=[partial(sweep_forever, store, settings.sweep_seconds)],
        )
