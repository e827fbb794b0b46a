"""The write lock of a SQLite file, which other processes may hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from meshkit.database.tracing import UNTRACED, status_code

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

POLL_SECONDS = 0.002


async def run_when_unlocked(connection: AsyncConnection, statement: str) -> None:
    """Runs a statement, without its own span, as soon as no other process holds the lock."""
    while True:
        try:
            await connection.exec_driver_sql(statement, execution_options={UNTRACED: True})
        except DBAPIError as error:
            if not (status_code(error) or "").startswith("SQLITE_BUSY"):
                raise
            await asyncio.sleep(POLL_SECONDS)
        else:
            return
