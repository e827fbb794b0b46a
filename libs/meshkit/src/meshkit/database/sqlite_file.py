"""The file of a SQLite database: it must stay the one that this process has opened.

A process does not notice that its file was removed or replaced: what it then writes is lost, or goes to a new file
while its other connections still use the old one. So the file is created only once, its identity is compared, and
another file is never used. https://www.sqlite.org/howtocorrupt.html#_unlinking_or_renaming_a_database_file_while_in_use
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import suppress
from urllib.parse import quote

COMPANIONS = ("-wal", "-shm")
"""What SQLite appends to the name of the file for the two that belong to it."""


class FileReplaced(OSError):
    """The file was removed or replaced; the text names it."""


class SqliteFile:
    """One file. The caller closes it, after all other connections.

    Args:
        path: its name; it may be a symbolic link.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - reads no disk, so it does not block
        self._identities: dict[str, tuple[int, int] | None] = {}
        self._anchor: sqlite3.Connection | None = None
        self._is_away = False

    @property
    def uri(self) -> str:
        """Its name for SQLite, which does not create it. See https://www.sqlite.org/uri.html for the form."""
        return f"file:{quote(self.path)}?mode=rw"

    async def create(self) -> None:
        """Creates the file if it is missing; only for the first time.

        Raises:
            OSError: it cannot be created.
            FileReplaced: it is not the file of the first time.
        """
        if not self._identities:
            await asyncio.to_thread(self._create)
        self.verify()

    async def hold(self) -> None:
        """Keeps the file's companions from being deleted by SQLite until `close`; it must be in WAL mode.

        Raises:
            OSError: it cannot be opened.
        """
        if self._anchor is None:
            self._anchor = await asyncio.to_thread(self._open_anchor)
        self.verify()

    def verify(self) -> None:
        """Compares the file with the first one, which takes a few microseconds.

        Raises:
            FileReplaced: it was removed, replaced or emptied, or one of its companions was.
        """
        other = next((name for name, identity in self._identities.items() if _identity(name) != identity), None)
        if other is None and self._anchor is not None and os.stat(self.path).st_size == 0:  # noqa: PTH116
            other = self.path
        self._is_away = other is not None
        if other:
            raise FileReplaced(f"{other} was removed or replaced: put it back, or restart to use what is there now")

    def require(self) -> None:
        """The last result of `verify`.

        Raises:
            FileReplaced: it failed.
        """
        if self._is_away:
            raise FileReplaced(f"{self.path} was removed or replaced")

    async def close(self) -> None:
        """Releases the file."""
        if self._anchor is not None:
            await asyncio.to_thread(self._anchor.close)

    def _create(self) -> None:
        # Never closes a descriptor of a file that exists: that would release the locks of SQLite in this process.
        with suppress(FileExistsError):
            os.close(os.open(os.path.realpath(self.path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self._identities[self.path] = _identity(self.path)

    def _open_anchor(self) -> sqlite3.Connection:
        try:
            anchor = sqlite3.connect(self.uri, uri=True, check_same_thread=False)
            anchor.execute("SELECT count(*) FROM sqlite_master")  # opens the companions
        except sqlite3.OperationalError as error:
            raise OSError(str(error)) from error
        for companion in COMPANIONS:
            name = os.path.realpath(self.path) + companion
            self._identities[name] = _identity(name)
        return anchor


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a path object takes longer
    except OSError:
        return None
    return found.st_dev, found.st_ino
