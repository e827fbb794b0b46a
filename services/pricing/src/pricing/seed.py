"""The shop's list prices, quantity breaks, promotions and rates, `seeds/*.csv`, for a new database."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias

from pricing.domain import MINOR_DIGITS
from pricing.tables import list_prices, promotions, quantity_breaks, rates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Table

Seed: TypeAlias = "dict[str, str]"
Row: TypeAlias = "dict[str, str | int | datetime]"


def seed() -> dict[Table, list[Row]]:
    """The rows of a new database. Reads files."""
    return {table: [read(entry) for entry in read_seeds(table.name)] for table, read in _READ.items()}


def read_seeds(name: str) -> Iterator[Seed]:
    """The rows of one file of `seeds/`."""
    with (files("pricing") / "seeds" / f"{name}.csv").open(encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def _list_price(entry: Seed) -> Row:
    minor = Decimal(entry["list_price"]).scaleb(MINOR_DIGITS[entry["currency"]])
    return {"sku": entry["sku"], "category": entry["category"], "currency": entry["currency"], "minor": int(minor)}


def _break(entry: Seed) -> Row:
    return {**entry, "min_quantity": int(entry["min_quantity"])}


def _promotion(entry: Seed) -> Row:
    return {
        "scope": entry["scope"],
        "name": entry["name"],
        "percent_off": entry["percent_off"],
        "valid_from": _start_of(entry["valid_from"]),
        "valid_until": _start_of(entry["valid_until"]),
    }


def _start_of(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def _rate(entry: Seed) -> Row:
    return {**entry}


_READ = {list_prices: _list_price, quantity_breaks: _break, promotions: _promotion, rates: _rate}
