"""The composition root of inventory: the only module that knows all the concrete classes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiomesh.inventory.v1.inventory_service_pb2 import DESCRIPTOR
from aiomesh.inventory.v1.inventory_service_pb2_grpc import add_InventoryServiceServicer_to_server
from inventory.domain import DatabaseUnavailable
from inventory.seed import seed
from inventory.servicer import InventoryServicer
from inventory.store import SqlInventoryStore
from inventory.sweeper import sweep_forever
from meshkit.database import Database
from meshkit.health import Health
from meshkit.lifecycle import serve
from meshkit.server import build_server

if TYPE_CHECKING:
    from inventory.settings import Settings
    from meshkit.lifecycle import Stop
    from meshkit.telemetry.provider import Telemetry

SERVICE: str = DESCRIPTOR.services_by_name["InventoryService"].full_name
MIGRATIONS = Path(__file__).with_name("migrations")


async def main(settings: Settings, telemetry: Telemetry, stop: Stop) -> None:
    """Serves stock and reservations until `stop` is requested. The caller flushes the telemetry."""
    tracer = telemetry.tracer_provider.get_tracer("inventory")
    database = Database(settings.database_url, unavailable=DatabaseUnavailable, tracer=tracer)
    hold = timedelta(seconds=settings.reservation_ttl_seconds)
    store = SqlInventoryStore(database, clock=utc_now, hold=hold, tracer=tracer)
    health = Health(SERVICE, partial(check, database))
    add = partial(add_InventoryServiceServicer_to_server, InventoryServicer(store))
    try:
        await serve(
            build_server(services={SERVICE: add}, health=health, telemetry=telemetry),
            listen=settings.listen,
            health=health,
            stop=stop,
            background=[partial(sweep_forever, store, settings.sweep_seconds)],
            drain_seconds=settings.drain_seconds,
            grace_seconds=settings.grace_seconds,
        )
    finally:
        await database.close()


async def check(database: Database) -> None:
    """Passes when stock can be answered: the database is reached, migrated and seeded, if need be by this call.

    Raises:
        DatabaseUnavailable: not now.
        UnknownRevision: not by this release.
    """
    await database.prepare(MIGRATIONS, seed)
    await database.check()


def utc_now() -> datetime:
    """The present time."""
    return datetime.now(UTC)
