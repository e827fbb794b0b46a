"""The databases of the variant on PostgreSQL: a private server of this machine's programs, without fsync."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from tests.private_postgres import PrivatePostgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVICES = ("inventory", "pricing")


def has_postgres() -> bool:
    """Whether the programs of PostgreSQL are installed."""
    return bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))


@contextmanager
def postgres_databases() -> Iterator[Mapping[str, str]]:
    """The variables with the URLs of one empty database for each service, on a server that ends with the block."""
    with PrivatePostgres().running() as url:
        for service in SERVICES:
            execute(url, f"CREATE DATABASE {service}")
        base = url.rpartition("/")[0]
        yield {f"{service.upper()}_DATABASE_URL": f"{base}/{service}" for service in SERVICES}


def execute(url: str, statement: str) -> None:
    """Executes one statement in a database."""
    asyncio.run(_execute(url, statement))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
