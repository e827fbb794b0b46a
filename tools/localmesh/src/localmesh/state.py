"""The state directory of a mesh: its databases and logs, and the two locks that keep meshes apart.

`localmesh.lock` is held by localmesh, and marks the directory as one that may be deleted. `children.lock` is
inherited by every child: flock(2) locks belong to the open file, so it stays locked until the last of them is gone,
also when localmesh was killed. The kernel releases both; neither is ever stale.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from localmesh.holders import holders
from localmesh.logs import Log

LOCK = "localmesh.lock"
CHILDREN_LOCK = "children.lock"
ORPHANS_LIMIT = 20.0  # seconds that the children of a killed localmesh may take to end
INTERVAL = 0.1  # seconds between two looks whether they have

Tell = Callable[[str], None]


class StateError(Exception):
    """The state directory cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class State:
    """A state directory held by this process until it calls `close`."""

    path: Path
    children_lock: int
    """The descriptor that children inherit."""
    _opened: ExitStack

    def log(self, name: str) -> Log:
        """A new log for the child `name`."""
        return Log(self.path / "logs" / f"{name}.log")

    def close(self) -> None:
        """Lets another localmesh have the directory."""
        self._opened.close()


def hold(path: Path, tell: Tell) -> State:
    """Holds the state directory `path`, made if it is missing; the caller closes it.

    `tell` hears of a wait for the children of a localmesh that was killed.

    Raises:
        StateError: a mesh runs on it, it holds other files, or it cannot be written.
    """
    try:
        with ExitStack() as opened:
            _make(path)
            _lock(path, opened)
            children_lock = _children_lock(path, tell, opened)
            return State(path, children_lock, opened.pop_all())
    except OSError as error:
        raise StateError(f"STATE_DIR={path} cannot be used: {error.strerror}") from error


def reset(path: Path, tell: Tell) -> None:
    """Deletes the state directory `path`.

    Raises:
        StateError: a mesh runs on it, it is no state directory, or it cannot be deleted.
    """
    if not path.exists():
        tell(f"{path} is not there: nothing to reset")
        return
    if not (path / LOCK).is_file():
        raise StateError(f"{path} is not the state of a mesh: it was left alone")
    state = hold(path, tell)
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise StateError(f"{path} cannot be deleted: {error.strerror}") from error
    finally:
        state.close()
    tell(f"{path} is deleted")


def _make(path: Path) -> None:
    if path.is_dir() and any(path.iterdir()) and not (path / LOCK).exists():
        raise StateError(f"{path} holds other files than the state of a mesh: choose another STATE_DIR")
    path.mkdir(parents=True, exist_ok=True)


def _lock(path: Path, opened: ExitStack) -> None:
    descriptor = _open(path / LOCK, opened)
    if not _flock(descriptor):
        raise StateError(f"a mesh already runs on {path}{_by(path / LOCK)}: stop it, or choose another STATE_DIR")
    if os.fstat(descriptor).st_nlink == 0:
        raise StateError(f"{path} was deleted just now: try again")


def _children_lock(path: Path, tell: Tell, opened: ExitStack) -> int:
    """Locks, waiting for the children of a killed localmesh: they were asked to stop when it died."""
    descriptor = _open(path / CHILDREN_LOCK, opened)
    give_up = time.monotonic() + ORPHANS_LIMIT
    told = False
    while not _flock(descriptor):
        orphans = f"processes of a mesh that was killed still use {path}{_by(path / CHILDREN_LOCK)}"
        if time.monotonic() > give_up:
            raise StateError(f"{orphans}: stop them first")
        if not told:
            tell(f"{orphans}: waiting for them to end")
            told = True
        time.sleep(INTERVAL)
    return descriptor


def _open(path: Path, opened: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    opened.callback(os.close, descriptor)
    return descriptor


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _by(path: Path) -> str:
    others = [str(holder) for holder in holders(str(path.resolve())) if holder.pid != os.getpid()]
    return f" ({', '.join(others)})" if others else ""
