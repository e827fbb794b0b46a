"""SQLite and PostgreSQL for one service."""
