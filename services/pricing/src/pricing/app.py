"""The composition root of pricing: the only module that knows all the concrete classes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiomesh.pricing.v1.pricing_service_pb2 import DESCRIPTOR
from aiomesh.pricing.v1.pricing_service_pb2_grpc import add_PricingServiceServicer_to_server
from meshkit.database.database import Database
from meshkit.lifecycle import serve
from meshkit.server.build import build_server
from meshkit.server.health import Health
from pricing.domain import DatabaseUnavailable
from pricing.seed import seed
from pricing.servicer import PricingServicer
from pricing.store import PriceStore

if TYPE_CHECKING:
    from meshkit.lifecycle import Stop
    from meshkit.telemetry import Telemetry
    from pricing.settings import Settings

SERVICE: str = DESCRIPTOR.services_by_name["PricingService"].full_name
MIGRATIONS = Path(__file__).with_name("migrations")


async def main(settings: Settings, telemetry: Telemetry, stop: Stop) -> None:
    """Serves prices until `stop` is requested. The caller flushes the telemetry."""
    async with AsyncExitStack() as closing:
        database = open_database(settings.database_url, telemetry)
        closing.push_async_callback(database.close)
        health = Health(SERVICE, partial(check, database))
        servicer = PricingServicer(PriceStore(database, clock=utc_now))
        add = partial(add_PricingServiceServicer_to_server, servicer)
        await serve(
            build_server(services={SERVICE: add}, health=health, telemetry=telemetry),
            listen=settings.listen,
            health=health,
            stop=stop,
            drain_seconds=settings.drain_seconds,
            grace_seconds=settings.grace_seconds,
        )


def open_database(url: str, telemetry: Telemetry) -> Database:
    """The database of pricing; the caller closes it."""
    tracer = telemetry.tracer_provider.get_tracer("pricing")
    return Database(url, unavailable=DatabaseUnavailable, tracer=tracer, meter=telemetry.meter)


async def check(database: Database) -> None:
    """Passes when prices can be answered: the database is reached, migrated and seeded, if need be by this call.

    Raises:
        DatabaseUnavailable: not now.
        UnknownRevision: not by this release.
    """
    await database.prepare(MIGRATIONS, seed)
    await database.check()


def utc_now() -> datetime:
    """The present time."""
    return datetime.now(UTC)
