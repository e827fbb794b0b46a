"""A service's schema: a directory of Alembic revisions, and the one that a database has.

The directory has Alembic's usual shape: `env.py`, which runs the migrations on the connection that it finds in
`context.config.attributes`, and `versions/`. The file name of a revision is its id, and file names sort by age, so the
newest one is known without importing Alembic (a quarter of a second, when most starts have nothing to migrate).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection


class UnknownRevision(Exception):
    """The database has a schema that this release does not know: a newer one, or another service's."""


def import_alembic() -> None:
    """Imports what `upgrade` needs: a thread may do so while the event loop goes on."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # the caller says in one line what was migrated
    import alembic.command  # noqa: F401, PLC0415


def known_revisions(migrations: Path) -> list[str]:
    """The ids of this release's revisions, oldest first."""
    return sorted(path.stem for path in (migrations / "versions").glob("*.py"))


def stored_revision(connection: Connection, migrations: Path) -> str | None:
    """The revision of a database's schema, None if it has no schema yet.

    Raises:
        UnknownRevision: it is none of this release's.
    """
    if not inspect(connection).has_table("alembic_version"):
        return None
    stored: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    known = known_revisions(migrations)
    if stored is not None and stored not in known:
        raise UnknownRevision(f"the database has the schema revision {stored}, this release knows up to {known[-1]}")
    return stored


def upgrade(connection: Connection, migrations: Path) -> None:
    """Migrates to the newest revision, inside the caller's transaction."""
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    command.upgrade(config, "head")
