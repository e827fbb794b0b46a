"""What the rivals' services look up: the databases that inventory and pricing have seeded, read by sqlite3 itself.

Every rival does the mesh's work: the stock of a SKU from one database and its price, by pricing's own arithmetic, from
the other.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pricing.domain import MINOR_DIGITS, Line, ListPrice, Money
from pricing.price_book import BASE_CURRENCY, Discounts, PriceBook, Promotion, QuantityBreak

BREAKS = """
    SELECT scope, min_quantity, percent_off FROM quantity_breaks
    WHERE scope IN ('all', 'sku:' || :sku) OR scope LIKE 'category:%'"""
PROMOTIONS = """
    SELECT name, scope, percent_off FROM promotions
    WHERE (scope IN ('all', 'sku:' || :sku) OR scope LIKE 'category:%') AND valid_from <= :now AND :now < valid_until"""
RATES = """
    SELECT currency, per_euro FROM rates
    WHERE currency IN (:currency, :listed) AND valid_from =
        (SELECT max(valid_from) FROM rates AS newest WHERE newest.currency = rates.currency AND valid_from <= :today)"""


def connect(file: str) -> sqlite3.Connection:
    """A connection that reads one of the databases; for one thread, which closes it."""
    return sqlite3.connect(f"file:{file}?mode=ro", uri=True)


def stock(database: sqlite3.Connection, sku: str) -> dict[str, Any] | None:
    """The stock of a SKU, or None."""
    statement = "SELECT sku, title, category, on_hand, reserved, version FROM stock WHERE sku = ?"
    row = database.execute(statement, (sku,)).fetchone()
    return row and dict(zip(("sku", "title", "category", "on_hand", "reserved", "version"), row, strict=True))


def price(database: sqlite3.Connection, sku: str, quantity: int, currency: str) -> dict[str, Any] | None:
    """The price of some units of a SKU, its amounts in decimal strings; None if it has none."""
    now = datetime.now(UTC)
    times = {"now": int(now.timestamp() * 1_000_000), "today": now.date().isoformat()}
    names = {"sku": sku, "currency": currency, **times}
    listed = database.execute("SELECT category, currency, minor FROM list_prices WHERE sku = :sku", names).fetchone()
    if not listed:
        return None
    breaks = database.execute(BREAKS, names)
    promotions = database.execute(PROMOTIONS, names)
    rates = database.execute(RATES, {**names, "listed": listed[1]})
    book = PriceBook(
        moment=now,
        list_prices={sku: ListPrice(sku, listed[0], Money(*listed[1:]))},
        discounts=Discounts(
            breaks=[QuantityBreak(number, Decimal(percent), scope) for scope, number, percent in breaks],
            promotions=[Promotion(Decimal(percent), name, scope) for name, scope, percent in promotions],
        ),
        rates={BASE_CURRENCY: Decimal(1)} | {name: Decimal(per_euro) for name, per_euro in rates},
    )
    priced = book.price(Line(sku, quantity), currency)
    return {
        "currency": currency,
        "unit_price": decimals(priced.unit_price.minor, currency),
        "quantity": quantity,
        "total": decimals(priced.total.minor, currency),
    }


def decimals(minor: int, currency: str) -> str:
    """An amount of minor units in the digits of its currency."""
    return str(Decimal(minor).scaleb(-MINOR_DIGITS[currency]))


def product(found: dict[str, Any], cost: dict[str, Any] | None) -> dict[str, Any]:
    """The body of a product's response: what the mesh's edge answers."""
    units = {"on_hand": found["on_hand"], "reserved": found["reserved"]}
    return {
        **{name: found[name] for name in ("sku", "title", "category")},
        "stock": {**units, "available": found["on_hand"] - found["reserved"], "version": found["version"]},
        "price": cost,
        "problems": [],
    }
