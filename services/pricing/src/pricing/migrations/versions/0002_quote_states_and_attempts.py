"""Adds the states of quotes and the attempts at them.

An existing quote becomes OPEN, with one attempt that nobody can undo. The columns keep their defaults, because SQLite
cannot drop them, and processes of the previous release still insert quotes while a new one starts. Those quotes have no
attempt, and get the same one when a process of this release joins them.
"""

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, String, text

revision = "0002_quote_states_and_attempts"
down_revision = "0001_prices_and_quotes"

UNSETTLED = text("state != 'COMMITTED'")


def upgrade() -> None:
    """Adds the columns, their index and the table of attempts, and fills them."""
    op.add_column("quotes", Column("state", String(16), nullable=False, server_default="OPEN"))
    op.add_column("quotes", Column("last_attempt_time", BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE quotes SET last_attempt_time = create_time")
    op.create_index(
        "unsettled_quotes",
        "quotes",
        ["quote_id", "create_time", "state"],
        sqlite_where=UNSETTLED,
        postgresql_where=UNSETTLED,
    )
    op.create_table(
        "quote_attempts",
        Column("quote_id", String(36), ForeignKey("quotes.quote_id", ondelete="CASCADE"), primary_key=True),
        Column("attempt_id", String(36), primary_key=True),
    )
    op.execute("INSERT INTO quote_attempts (quote_id, attempt_id) SELECT quote_id, '' FROM quotes")
