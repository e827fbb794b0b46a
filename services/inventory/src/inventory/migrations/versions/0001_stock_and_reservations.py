"""Creates the tables of stock, of reservations with their lines and attempts, and of adjustments."""

from alembic import op
from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, String

revision = "0001_stock_and_reservations"
down_revision = None

SKU = String(64).with_variant(String(64, collation="C"), "postgresql")
RESERVATION = "reservations.reservation_id"


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "stock",
        Column("sku", SKU, primary_key=True),
        Column("title", String(200), nullable=False),
        Column("category", String(64), nullable=False),
        Column("on_hand", BigInteger, nullable=False),
        Column("reserved", BigInteger, nullable=False),
        Column("version", BigInteger, nullable=False),
        CheckConstraint("reserved >= 0 AND on_hand >= reserved", name="stock_never_oversold"),
    )
    op.create_table(
        "reservations",
        Column("reservation_id", String(36), primary_key=True),
        Column("state", String(16), nullable=False),
        Column("fingerprint", String(128), nullable=False),
        Column("create_time", BigInteger, nullable=False),
        Column("expire_time", BigInteger, nullable=False),
    )
    op.create_index("reservations_by_expiry", "reservations", ["state", "expire_time"])
    op.create_table(
        "reservation_lines",
        Column("reservation_id", String(36), ForeignKey(RESERVATION, ondelete="CASCADE"), primary_key=True),
        Column("position", Integer, primary_key=True),
        Column("sku", SKU, ForeignKey("stock.sku"), nullable=False),
        Column("quantity", BigInteger, nullable=False),
    )
    op.create_table(
        "reservation_attempts",
        Column("reservation_id", String(36), ForeignKey(RESERVATION, ondelete="CASCADE"), primary_key=True),
        Column("attempt_id", String(36), primary_key=True),
    )
    op.create_table(
        "adjustments",
        Column("request_id", String(36), primary_key=True),
        Column("sku", SKU, nullable=False),
        Column("delta", BigInteger, nullable=False),
    )
