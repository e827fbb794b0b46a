"""The shop's list prices, quantity breaks, promotions and rates that a new database starts with: `seeds/*.csv`."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING

from pricing.domain import MINOR_DIGITS
from pricing.tables import list_prices, promotions, quantity_breaks, rates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection


async def seed(connection: AsyncConnection) -> None:
    """Fills new tables, in the transaction that made them."""
    await connection.execute(list_prices.insert(), list(map(_list_price, read_seeds("list_prices"))))
    await connection.execute(quantity_breaks.insert(), list(map(_break, read_seeds("quantity_breaks"))))
    await connection.execute(promotions.insert(), list(map(_promotion, read_seeds("promotions"))))
    await connection.execute(rates.insert(), list(read_seeds("rates")))


def read_seeds(name: str) -> Iterator[dict[str, str]]:
    """The rows of one file of `seeds/`."""
    with (files("pricing") / "seeds" / f"{name}.csv").open(encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def _list_price(row: dict[str, str]) -> dict[str, str | int]:
    minor = Decimal(row["list_price"]).scaleb(MINOR_DIGITS[row["currency"]])
    return {"sku": row["sku"], "category": row["category"], "currency": row["currency"], "minor": int(minor)}


def _break(row: dict[str, str]) -> dict[str, str | int]:
    return {**row, "min_quantity": int(row["min_quantity"])}


def _promotion(row: dict[str, str]) -> dict[str, str | datetime]:
    return {
        "scope": row["scope"],
        "name": row["name"],
        "percent_off": row["percent_off"],
        "valid_from": _start_of(row["valid_from"]),
        "valid_until": _start_of(row["valid_until"]),
    }


def _start_of(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)
