"""Runs the migrations on the connection, and in the transaction, that `meshkit.database` hands over."""
# ruff: noqa: INP001 - alembic loads it by path

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
