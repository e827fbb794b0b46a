"""A SQLite file that is removed or replaced while a process uses it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, NoReturn

import pytest

from meshkit.errors import describe
from tests.meshkit.notes import NotesUnavailable, open_notes, seed, words, write_words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from meshkit.database.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A link to a file in a folder of its own, so that both can be changed."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.db").write_bytes(b"")
    (tmp_path / "notes.db").symlink_to("folder/notes.db")
    return tmp_path / "notes.db"


@pytest.fixture
async def database(path: Path, migrations: Path) -> AsyncIterator[Database]:
    async with open_notes(f"sqlite:///{path}") as database:
        await database.prepare(migrations, seed)
        await database.write(lambda connection: write_words(connection, "kept"))
        yield database


def remove_all(path: Path) -> None:
    shutil.rmtree(path.parent / "folder")
    (path.parent / "folder").mkdir()


def remove_the_file(path: Path) -> None:
    path.resolve().unlink()


def rename_another_over_it(path: Path) -> None:
    with closing(sqlite3.connect(path)) as own, closing(sqlite3.connect(path.parent / "copy.db")) as copy:
        own.backup(copy)
    (path.parent / "copy.db").replace(path.resolve())


def empty_it(path: Path) -> None:
    path.write_bytes(b"")


def remove_its_log(path: Path) -> None:
    (path.parent / "folder" / "notes.db-wal").unlink()


def remove_its_index(path: Path) -> None:
    (path.parent / "folder" / "notes.db-shm").unlink()


def rename_its_folder(path: Path) -> None:
    (path.parent / "folder").rename(path.parent / "renamed")


def point_the_link_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("other.db")


FAULTS = [
    remove_all,
    remove_the_file,
    rename_another_over_it,
    empty_it,
    remove_its_log,
    remove_its_index,
    rename_its_folder,
    point_the_link_elsewhere,
]
each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


def files(path: Path) -> dict[str, tuple[int, int]]:
    """The names of all files, with identity and size."""
    found = [each for each in path.parent.rglob("*") if each.is_file() and "migrations" not in each.parts]
    return {str(each): (each.stat().st_ino, each.stat().st_size) for each in found}


@each_fault
async def test_every_call_fails_and_nothing_is_created(
    database: Database, path: Path, migrations: Path, fault: Callable[[Path], None]
) -> None:
    await asyncio.to_thread(fault, path)
    before = await asyncio.to_thread(files, path)
    with pytest.raises(NotesUnavailable) as failure:
        await database.write(write_words)
    with pytest.raises(NotesUnavailable):
        await database.check()
    calls = [words(database) for _ in range(10)] + [database.write(write_words) for _ in range(3)]
    outcomes = await asyncio.gather(*calls, database.prepare(migrations, seed), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:-1]] == [NotesUnavailable] * len(calls)
    assert await asyncio.to_thread(files, path) == before
    assert "notes.db" in describe(failure.value)
    assert "was removed or replaced" in describe(failure.value)
    assert "notes.db" not in failure.value.message


async def test_reads_fail_after_the_next_check(database: Database, path: Path) -> None:
    await asyncio.to_thread(remove_all, path)
    with pytest.raises(NotesUnavailable):
        await database.check()
    with pytest.raises(NotesUnavailable):
        await words(database)


async def test_the_same_file_is_used_again_and_another_one_never(database: Database, path: Path) -> None:
    own, away = path.parent / "folder", path.parent / "away"
    await asyncio.to_thread(own.rename, away)
    await asyncio.to_thread(own.mkdir)
    for each in ("notes.db", "notes.db-wal", "notes.db-shm"):
        await asyncio.to_thread(shutil.copy, away / each, own / each)
    with pytest.raises(NotesUnavailable):
        await database.check()
    with pytest.raises(NotesUnavailable):
        await database.write(write_words)
    await asyncio.to_thread(shutil.rmtree, own)
    await asyncio.to_thread(away.rename, own)
    await database.check()
    assert await words(database) == "kept"
    await database.write(write_words)
    assert await words(database) == "written"


async def test_a_connection_to_another_file_is_never_pooled(database: Database, path: Path) -> None:
    """Readers connect when they are first needed, which may be while another file has the name."""
    own, away = path.parent / "folder", path.parent / "away"
    await asyncio.to_thread(shutil.copytree, own, path.parent / "copy")
    await asyncio.to_thread(own.rename, away)
    await asyncio.to_thread((path.parent / "copy").rename, own)
    outcomes = await asyncio.gather(*(words(database) for _ in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} >= {NotesUnavailable}
    await asyncio.to_thread(own.rename, path.parent / "copy")
    await asyncio.to_thread(away.rename, own)
    await database.write(write_words)
    assert await asyncio.gather(*(words(database) for _ in range(20))) == ["written"] * 20


async def test_what_was_written_before_its_log_was_removed_is_kept(path: Path, migrations: Path) -> None:
    async with open_notes(f"sqlite:///{path}") as database:
        await database.prepare(migrations, seed)
        await database.write(write_words)
        await asyncio.to_thread(remove_its_log, path)
        with pytest.raises(NotesUnavailable):
            await database.write(lambda connection: write_words(connection, "lost"))
    async with open_notes(f"sqlite:///{path}") as restarted:
        await restarted.prepare(migrations, seed)
        assert await words(restarted) == "written"


async def test_a_file_that_was_removed_before_it_was_ready_is_not_created_again(
    tmp_path: Path, migrations: Path
) -> None:
    def fail() -> NoReturn:
        raise ZeroDivisionError

    path = tmp_path / "notes.db"
    async with open_notes(f"sqlite:///{path}") as database:
        with pytest.raises(ZeroDivisionError):
            await database.prepare(migrations, fail)
        await asyncio.to_thread(path.unlink)
        with pytest.raises(NotesUnavailable):
            await database.prepare(migrations, seed)
        assert not await asyncio.to_thread(path.exists)


async def test_a_new_file_is_private(database: Database, path: Path) -> None:
    await database.write(write_words)
    created = await asyncio.to_thread(lambda: [each.stat().st_mode & 0o777 for each in path.resolve().parent.iterdir()])
    assert created == [0o600] * 3
