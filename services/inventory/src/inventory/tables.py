"""The tables of inventory."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, MetaData, String, Table

from meshkit.database.columns import UtcMicros

metadata = MetaData()

# SKUs sort by their bytes, so ListStock pages and row locks have the same order on every database.
SKU = String(64).with_variant(String(64, collation="C"), "postgresql")

stock = Table(
    "stock",
    metadata,
    Column("sku", SKU, primary_key=True),
    Column("title", String(200), nullable=False),
    Column("category", String(64), nullable=False),
    Column("on_hand", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("reserved >= 0 AND on_hand >= reserved", name="stock_never_oversold"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("reservation_id", String(36), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("fingerprint", String(128), nullable=False),
    Column("create_time", UtcMicros, nullable=False),
    Column("expire_time", UtcMicros, nullable=False),
    Index("reservations_by_expiry", "state", "expire_time"),
)

reservation_lines = Table(
    "reservation_lines",
    metadata,
    Column("reservation_id", ForeignKey(reservations.c.reservation_id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("sku", ForeignKey(stock.c.sku), nullable=False),
    Column("quantity", BigInteger, nullable=False),
)

reservation_attempts = Table(
    "reservation_attempts",
    metadata,
    Column("reservation_id", ForeignKey(reservations.c.reservation_id, ondelete="CASCADE"), primary_key=True),
    Column("attempt_id", String(36), primary_key=True),
)

adjustments = Table(
    "adjustments",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("sku", SKU, nullable=False),
    Column("delta", BigInteger, nullable=False),
)
