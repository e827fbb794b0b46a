"""Fills a new database with the shop's catalogue, `seed.csv`."""

from __future__ import annotations

import asyncio
import csv
from importlib.resources import files
from typing import TYPE_CHECKING

from sqlalchemy import select

from inventory.tables import stock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def seed(connection: AsyncConnection) -> None:
    """Fills the stock table if it is empty."""
    if await connection.scalar(select(stock.c.sku).limit(1)) is None:
        await connection.execute(stock.insert(), await asyncio.to_thread(read_catalogue))


def read_catalogue() -> list[dict[str, str | int]]:
    """The rows of `seed.csv` as rows of the stock table."""
    with (files("inventory") / "seed.csv").open(encoding="utf-8") as lines:
        return [
            {
                "sku": row["sku"],
                "title": row["title"],
                "category": row["category"],
                "on_hand": int(row["stock"]),
                "reserved": 0,
                "version": 1,
            }
            for row in csv.DictReader(lines)
        ]
