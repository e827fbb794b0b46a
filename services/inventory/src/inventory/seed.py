"""The shop's catalogue, `seed.csv`, for a new database."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import TYPE_CHECKING

from inventory.tables import stock

if TYPE_CHECKING:
    from sqlalchemy import Table


def seed() -> dict[Table, list[dict[str, str | int]]]:
    """The rows of a new database. Reads a file."""
    return {stock: read_catalogue()}


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
