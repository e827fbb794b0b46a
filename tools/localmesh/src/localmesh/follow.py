"""Shows what the services log while the mesh runs on a terminal, for people; the files keep it as JSON.

The services write to their files, and here the files are read as they grow: nobody who logs waits for the terminal. A
mesh under load logs more than anyone can read, so a part of it is shown and the rest counted.
"""

import asyncio
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from localmesh.console import DIM, RED, YELLOW, Console
from localmesh.logs import TRACEBACK_LINES

INTERVAL = 0.2  # seconds between two looks at the files
MOST = 40  # records shown at each
READ_BYTES = 1_000_000  # of a file at each

COLOURS = {"WARNING": YELLOW, "ERROR": RED, "CRITICAL": RED}

Record = Mapping[str, object]


class Tail:
    """What is written to a file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0

    def records(self) -> list[Record]:
        """The records of the lines that have come since the last call, but for lines that are none of ours."""
        return [record for line in self._lines() if (record := parsed(line))]

    def _lines(self) -> list[bytes]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._position:  # it was emptied
                self._position = 0
            file.seek(self._position)
            whole, end, _ = file.read(READ_BYTES).rpartition(b"\n")
        self._position += len(whole) + len(end)
        return whole.splitlines()


def parsed(line: bytes) -> Record | None:
    """The record of a JSON line of our services, or None."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"time", "level", "service", "message"} <= record.keys() else None


def shown(record: Record, console: Console) -> str:
    """A record on one line: time, level, service, message, how long it took, its trace; a traceback's end below."""
    level, told = str(record["level"]), [printable(record["message"])]
    if "duration_ms" in record:
        told.append(f"{record['duration_ms']} ms")
    if "trace_id" in record:
        told.append(console.painted(str(record["trace_id"]), DIM))
    painted = console.painted(f"{level:<7}", COLOURS[level]) if level in COLOURS else f"{level:<7}"
    head = f"{str(record['time'])[11:23]} {painted} {record['service']!s:<9}  {'  '.join(told)}"
    return "\n  | ".join([head, *map(printable, str(record.get("exception", "")).splitlines()[-TRACEBACK_LINES:])])


def printable(value: object) -> str:
    """The text of a value without what would command the terminal: a path of a request may hold anything."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))


def warnings(tails: Sequence[Tail], console: Console) -> list[str]:
    """The lines of what has been logged so far as a warning or worse."""
    records = (record for tail in tails for record in tail.records() if record["level"] in COLOURS)
    return [shown(record, console) for record in itertools.islice(records, MOST)]


async def follow(tails: Sequence[Tail], console: Console) -> NoReturn:
    """Prints what is logged, in the order of its time, until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL)
        records = sorted(
            (record for tail in tails for record in tail.records()), key=lambda record: str(record["time"])
        )
        for record in records[:MOST]:
            console.say(shown(record, console))
        if len(records) > MOST:
            console.say(console.painted(f"… and {len(records) - MOST} more", DIM))
