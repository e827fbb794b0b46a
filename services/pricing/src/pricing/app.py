"""The composition root of pricing: the only module that knows all the concrete classes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiomesh.pricing.v1.pricing_service_pb2 import DESCRIPTOR
from aiomesh.pricing.v1.pricing_service_pb2_grpc import add_PricingServiceServicer_to_server
from meshkit.api import Api
from meshkit.database import check_database, open_database
from meshkit.service import grpc_app, utc_now
from pricing.domain import DatabaseUnavailable
from pricing.seed import seed
from pricing.servicer import PricingServicer
from pricing.store import PriceStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from meshkit.service import GrpcApp
    from meshkit.telemetry import Telemetry
    from pricing.settings import Settings

PRICING = Api(DESCRIPTOR.services_by_name["PricingService"])
MIGRATIONS = Path(__file__).with_name("migrations")


@asynccontextmanager
async def build(
    settings: Settings,
    telemetry: Telemetry,
    *,
    clock: Callable[[], datetime] = utc_now,
    servicer: Callable[[PriceStore], PricingServicer] = PricingServicer,
) -> AsyncIterator[GrpcApp]:
    """The pricing service and its database, which is closed at the end of the block.

    Args:
        settings: those of the process.
        telemetry: that of the process; the caller shuts it down.
        clock: returns the current time, an aware datetime.
        servicer: creates the servicer from the store.
    """
    tracer = telemetry.tracer_provider.get_tracer("pricing")
    async with open_database(settings.database_url, DatabaseUnavailable, tracer, telemetry.meter) as database:
        yield grpc_app(
            PRICING,
            partial(add_PricingServiceServicer_to_server, servicer(PriceStore(database, clock, tracer))),
            settings,
            telemetry,
            check=partial(check_database, database, MIGRATIONS, seed),
        )
