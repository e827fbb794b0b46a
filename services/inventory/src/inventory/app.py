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
from inventory.store import InventoryStore
from inventory.sweeper import sweep_forever
from meshkit.database.database import Database
from meshkit.lifecycle import serve
from meshkit.server.build import build_server
from meshkit.server.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from inventory.settings import Settings
    from meshkit.lifecycle import Stop
    from meshkit.telemetry.provider import Telemetry

SERVICE: str = DESCRIPTOR.services_by_name["InventoryService"].full_name
MIGRATIONS = Path(__file__).with_name("migrations")


def utc_now() -> datetime:
    """The present time."""
    return datetime.now(UTC)


async def main(settings: Settings, telemetry: Telemetry, stop: Stop) -> None:
    """Serves stock and reservations until `stop` is requested. The caller flushes the telemetry."""
    database = open_database(settings.database_url, telemetry)
    store = open_store(database, telemetry, hold=timedelta(seconds=settings.reservation_ttl_seconds))
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


def open_database(url: str, telemetry: Telemetry) -> Database:
    """The database of inventory; the caller closes it."""
    tracer = telemetry.tracer_provider.get_tracer("inventory")
    return Database(url, unavailable=DatabaseUnavailable, tracer=tracer, meter=telemetry.meter)


def open_store(
    database: Database, telemetry: Telemetry, *, hold: timedelta, clock: Callable[[], datetime] = utc_now
) -> InventoryStore:
    """The store on that database, whose reservations last for `hold`."""
    return InventoryStore(database, clock, hold, telemetry.tracer_provider.get_tracer("inventory"))


async def check(database: Database) -> None:
    """Passes when stock can be answered: the database is reached, migrated and seeded, if need be by this call.

    Raises:
        DatabaseUnavailable: not now.
        UnknownRevision: not by this release.
    """
    await database.prepare(MIGRATIONS, seed)
    await database.check()
