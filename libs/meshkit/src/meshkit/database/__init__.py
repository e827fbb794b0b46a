"""SQLite and PostgreSQL for one service: `pip install 'meshkit[database]'`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from meshkit.extras import require

require("database")

# isort: split
from meshkit.database.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer

    from meshkit.database.migrations import Seed
    from meshkit.errors import Unavailable

__all__ = ["Database", "check_database", "open_database"]


@asynccontextmanager
async def open_database(
    url: str, unavailable: type[Unavailable], tracer: Tracer, meter: Meter, *, patience: float = 5.0
) -> AsyncIterator[Database]:
    """The database of a service, closed at the end of the block. Takes the arguments of Database."""
    database = Database(url, unavailable=unavailable, tracer=tracer, meter=meter, patience=patience)
    try:
        yield database
    finally:
        await database.close()


async def check_database(database: Database, migrations: Path, seed: Seed) -> None:
    """Checks that the database can serve; migrates and seeds it if necessary.

    Raises:
        Unavailable: it cannot serve now; raised as the service's own class.
        UnknownRevision: this release does not know its schema.
    """
    await database.prepare(migrations, seed)
    await database.check()
