"""The tables of pricing. Amounts are integers in minor units; rates and percentages are text (SQLite has no decimals).

Times are UTC: moments in integer microseconds since 1970, the days of rates as ISO dates.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, text

from meshkit.database.columns import UtcMicros

metadata = MetaData()

list_prices = Table(
    "list_prices",
    metadata,
    Column("sku", String(64), primary_key=True),
    Column("category", String(64), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("minor", BigInteger, nullable=False),
)

price_changes = Table(
    "price_changes",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("sku", String(64), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("minor", BigInteger, nullable=False),
    Column("create_time", UtcMicros, nullable=False),
)

quantity_breaks = Table(
    "quantity_breaks",
    metadata,
    Column("scope", String(80), primary_key=True),
    Column("min_quantity", Integer, primary_key=True),
    Column("percent_off", String(16), nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("scope", String(80), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("percent_off", String(16), nullable=False),
    Column("valid_from", UtcMicros, nullable=False),
    Column("valid_until", UtcMicros, nullable=False),
)

rates = Table(
    "rates",
    metadata,
    Column("currency", String(3), primary_key=True),
    Column("valid_from", String(10), primary_key=True),
    Column("per_euro", String(32), nullable=False),
)

UNSETTLED = text("state != 'COMMITTED'")
"""The condition of the index `unsettled_quotes`. Without parameters, so a planner sees that a query may use it."""

quotes = Table(
    "quotes",
    metadata,
    Column("quote_id", String(36), primary_key=True),
    Column("fingerprint", String(128), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("create_time", UtcMicros, nullable=False),
    Column("state", String(16), nullable=False),
    Column("last_attempt_time", UtcMicros, nullable=False),
    # SQLite also reads the state, although the condition implies it.
    Index("unsettled_quotes", "quote_id", "create_time", "state", sqlite_where=UNSETTLED, postgresql_where=UNSETTLED),
)

quote_lines = Table(
    "quote_lines",
    metadata,
    Column("quote_id", String(36), ForeignKey("quotes.quote_id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("sku", String(64), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_minor", BigInteger, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
)

quote_attempts = Table(
    "quote_attempts",
    metadata,
    Column("quote_id", String(36), ForeignKey("quotes.quote_id", ondelete="CASCADE"), primary_key=True),
    Column("attempt_id", String(36), primary_key=True),
)
