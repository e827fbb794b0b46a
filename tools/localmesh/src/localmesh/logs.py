"""One log file of limited size for each child, and the previous file.

Each child writes to its file directly, because a child must not wait for a localmesh that is stopped (Ctrl-Z) or dead.
So localmesh limits the size by copying the file and then truncating it; lines written in between are lost.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from localmesh.console import escape

BOUND = 10_000_000  # bytes; a longer file moves to the previous one
TAIL_BYTES = 16_384  # how much of the end is searched for the last lines
LINE_WIDTH = 300
TRACEBACK_LINES = 4


def readable(line: str) -> list[str]:
    """A line of a log in readable form: a JSON record as time, level and message, with the end of its traceback."""
    try:
        record = json.loads(line)
        time, level, message = record["time"][11:19], record["level"], record["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return [escape(line)]
    return [escape(f"{time} {level} {message}"), *map(escape, last_of_traceback(record))]


def last_of_traceback(record: Mapping[str, object]) -> list[str]:
    """The last lines of the record's traceback, if it has one."""
    text = str(record.get("exception") or "").strip("\n")
    return text.split("\n")[-TRACEBACK_LINES:] if text else []


class Log:
    """The log of one child in `NAME.log`; earlier lines are in `NAME.1.log`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._previous = path.with_suffix(f".1{path.suffix}")
        self._start = 0
        if path.exists():
            path.replace(self._previous)

    def open(self) -> int:
        """A descriptor for a new process to append to; the caller closes it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._start = os.fstat(descriptor).st_size
        return descriptor

    def last_lines(self, count: int = 6) -> list[str]:
        """The last lines since the last `open`, in readable form and escaped; none if there is no file."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            start = self._start if self._start <= size else 0  # the file was truncated since
            log.seek(max(start, size - TAIL_BYTES))
            lines = log.read().decode(errors="replace").replace("\r\n", "\n").removesuffix("\n").split("\n")
        lines = lines if lines != [""] else []
        shown = [part for line in lines[-count:] for part in readable(line)]
        return [line if len(line) <= LINE_WIDTH else line[:LINE_WIDTH] + "…" for line in shown[-2 * count :]]

    def bound(self, limit: int = BOUND) -> None:
        """Moves the content to `NAME.1.log` if the file is longer than `limit` bytes."""
        if self.path.exists() and self.path.stat().st_size > limit:
            shutil.copyfile(self.path, self._previous)
            os.truncate(self.path, 0)
