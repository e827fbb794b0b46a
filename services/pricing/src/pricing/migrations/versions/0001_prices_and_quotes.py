"""Creates the tables of list prices, quantity breaks, promotions, rates and quotes."""

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String

revision = "0001_prices_and_quotes"
down_revision = None


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "list_prices",
        Column("sku", String(64), primary_key=True),
        Column("category", String(64), nullable=False),
        Column("currency", String(3), nullable=False),
        Column("minor", BigInteger, nullable=False),
    )
    op.create_table(
        "price_changes",
        Column("request_id", String(36), primary_key=True),
        Column("sku", String(64), nullable=False),
        Column("currency", String(3), nullable=False),
        Column("minor", BigInteger, nullable=False),
        Column("create_time", BigInteger, nullable=False),
    )
    op.create_table(
        "quantity_breaks",
        Column("scope", String(80), primary_key=True),
        Column("min_quantity", Integer, primary_key=True),
        Column("percent_off", String(16), nullable=False),
    )
    op.create_table(
        "promotions",
        Column("scope", String(80), primary_key=True),
        Column("name", String(64), primary_key=True),
        Column("percent_off", String(16), nullable=False),
        Column("valid_from", BigInteger, nullable=False),
        Column("valid_until", BigInteger, nullable=False),
    )
    op.create_table(
        "rates",
        Column("currency", String(3), primary_key=True),
        Column("valid_from", String(10), primary_key=True),
        Column("per_euro", String(32), nullable=False),
    )
    op.create_table(
        "quotes",
        Column("quote_id", String(36), primary_key=True),
        Column("fingerprint", String(128), nullable=False),
        Column("currency", String(3), nullable=False),
        Column("total_minor", BigInteger, nullable=False),
        Column("create_time", BigInteger, nullable=False),
    )
    op.create_table(
        "quote_lines",
        Column("quote_id", String(36), ForeignKey("quotes.quote_id"), primary_key=True),
        Column("position", Integer, primary_key=True),
        Column("sku", String(64), nullable=False),
        Column("quantity", Integer, nullable=False),
        Column("unit_minor", BigInteger, nullable=False),
        Column("total_minor", BigInteger, nullable=False),
    )
