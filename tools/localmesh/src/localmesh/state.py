"""The state directory of a mesh: its databases, its logs, and two locks, so that only one mesh uses it.

Only its owner may enter it: the databases hold orders, and the logs what clients sent.

localmesh holds `localmesh.lock`, which also marks the directory as one that may be deleted. Every child inherits
`children.lock`: a flock(2) lock belongs to the open file, so it stays locked until the last child exits, even if
localmesh was killed. The kernel releases both, so a lock is never stale.
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
ORPHANS_LIMIT = 20.0  # seconds that the children of a killed localmesh may take to exit
INTERVAL = 0.1  # seconds between two attempts to lock

Report = Callable[[str], None]


class StateError(Exception):
    """The state directory cannot be used; the text says why, and what to do."""


@dataclass(frozen=True)
class State:
    """A state directory that this process has locked until it calls `close`."""

    path: Path
    children_lock: int
    """The descriptor that children inherit."""
    _locks: ExitStack

    def log(self, name: str) -> Log:
        """A new log for the child `name`."""
        return Log(self.path / "logs" / f"{name}.log")

    def close(self) -> None:
        """Unlocks the directory for another localmesh."""
        self._locks.close()


def hold(path: Path, report: Report) -> State:
    """Locks the state directory `path`, and creates it if it is missing; the caller closes it.

    `report` is called with a text if this waits for the children of a killed localmesh.

    Raises:
        StateError: another mesh uses it, it contains other files, or it cannot be written.
    """
    try:
        with ExitStack() as locks:
            _make(path)
            _lock(path, locks)
            children_lock = _children_lock(path, report, locks)
            return State(path, children_lock, locks.pop_all())
    except OSError as error:
        raise StateError(f"STATE_DIR={path} cannot be used: {error.strerror}") from error


def reset(path: Path, report: Report) -> None:
    """Deletes the state directory `path`.

    Raises:
        StateError: a mesh uses it, it is not a state directory, or it cannot be deleted.
    """
    if not path.exists():
        report(f"{path} does not exist: nothing to reset")
        return
    if not (path / LOCK).is_file():
        raise StateError(f"{path} is not the state directory of a mesh and was not deleted")
    state = hold(path, report)
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise StateError(f"{path} cannot be deleted: {error.strerror}") from error
    finally:
        state.close()
    report(f"deleted {path}")


def _make(path: Path) -> None:
    if path.is_dir() and any(path.iterdir()) and not (path / LOCK).exists():
        raise StateError(f"{path} contains files that are not the state of a mesh: choose another STATE_DIR")
    path.mkdir(0o700, parents=True, exist_ok=True)
    path.chmod(0o700)  # an earlier release made it readable for everyone


def _lock(path: Path, locks: ExitStack) -> None:
    descriptor = _open(path / LOCK, locks)
    if not _flock(descriptor):
        raise StateError(f"another mesh uses {path}{_users(path / LOCK)}: stop it, or choose another STATE_DIR")
    if os.fstat(descriptor).st_nlink == 0:
        raise StateError(f"{path} was deleted just now: try again")


def _children_lock(path: Path, report: Report, locks: ExitStack) -> int:
    """Locks the children's lock. Waits for the children of a killed localmesh, which got SIGTERM when it died."""
    descriptor = _open(path / CHILDREN_LOCK, locks)
    deadline = time.monotonic() + ORPHANS_LIMIT
    is_first_try = True
    while not _flock(descriptor):
        orphans = f"processes of a killed mesh still use {path}{_users(path / CHILDREN_LOCK)}"
        if time.monotonic() > deadline:
            raise StateError(f"{orphans}: stop them first")
        if is_first_try:
            report(f"{orphans}: waiting until they exit")
            is_first_try = False
        time.sleep(INTERVAL)
    return descriptor


def _open(path: Path, locks: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    locks.callback(os.close, descriptor)
    return descriptor


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _users(path: Path) -> str:
    others = [str(holder) for holder in holders(str(path.resolve())) if holder.pid != os.getpid()]
    return f" ({', '.join(others)})" if others else ""
