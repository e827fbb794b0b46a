"""Migrates a database to the newest of a service's Alembic revisions.

The directory of revisions holds `versions/`. The file name of a revision is its id, and file names sort by age, so the
newest one is known without importing Alembic, which takes a quarter of a second; most starts have nothing to migrate.
The functions that read files are separate from those that use the database: call them in a thread, off the event loop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sqlalchemy import inspect, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Connection, Table

    Rows = Mapping[Table, Sequence[Mapping[str, Any]]]

log = logging.getLogger("meshkit.database")

Seed: TypeAlias = "Callable[[], Rows]"
"""Reads the rows of the tables of a new database."""

LOCK = 0x6D657368
"""The key of PostgreSQL's advisory lock for migrations."""


class UnknownRevision(Exception):
    """This release does not know the database's schema: it is newer, or another service's."""


def known_revisions(migrations: Path) -> list[str]:
    """The ids of this release's revisions, oldest first. Reads files."""
    return sorted(path.stem for path in (migrations / "versions").glob("*.py"))


def load_scripts(migrations: Path) -> ScriptDirectory:
    """The revisions, loaded. Reads files."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - a slow import

    scripts = ScriptDirectory(migrations)
    scripts.get_heads()  # loads them
    return scripts


def stored_revision(connection: Connection, known: Sequence[str]) -> str | None:
    """The revision of a database's schema, or None without a schema.

    Raises:
        UnknownRevision: `known` does not contain the revision.
    """
    if not inspect(connection).has_table("alembic_version"):
        return None
    stored: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if stored is not None and stored not in known:
        raise UnknownRevision(
            f"the database has the schema revision {stored}, the newest of this release is {known[-1]}"
        )
    return stored


def migrate(known: Sequence[str], scripts: ScriptDirectory, rows: Rows, connection: Connection) -> None:
    """Migrates to the newest revision, in the caller's transaction; a database without a schema gets the rows, too."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    stored = stored_revision(connection, known)
    if stored == known[-1]:  # another process has migrated it
        return
    _upgrade(connection, scripts, stored)
    if stored is None:
        for table, seeds in rows.items():
            connection.execute(table.insert(), seeds)
    log.info("migrated the database from %s to %s", stored or "nothing", known[-1])


def _upgrade(connection: Connection, scripts: ScriptDirectory, stored: str | None) -> None:
    from alembic.migration import MigrationContext  # noqa: PLC0415
    from alembic.operations import Operations  # noqa: PLC0415

    context = MigrationContext.configure(connection)
    newer = cast("list[Script]", list(scripts.iterate_revisions("head", stored)))
    with Operations.context(context):
        for script in reversed(newer):
            script.module.upgrade()
    context.stamp(scripts, "head")
