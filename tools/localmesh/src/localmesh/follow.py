"""Shows the log records of the services on the terminal in a readable form.

The services log JSON to files, and this module reads the files as they grow, so no service waits for the terminal. A
mesh under load logs more than a person can read, so only some of the records are shown and the others are counted.
"""

import asyncio
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from localmesh.console import DIM, RED, YELLOW, Console, escape
from localmesh.logs import last_of_traceback

INTERVAL = 0.2  # seconds between two reads of the files
MAX_RECORDS = 40  # shown after each read
READ_BYTES = 1_000_000  # the most bytes of one read of a file

COLOURS = {"WARNING": YELLOW, "ERROR": RED, "CRITICAL": RED}

Record = Mapping[str, object]


class Tail:
    """Reads what is appended to a file after this object was created."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0

    def records(self) -> list[Record]:
        """The records appended since the last call. Lines that are not records of our services are skipped."""
        return [record for line in self._lines() if (record := parse(line))]

    def _lines(self) -> list[bytes]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._position:  # the file was truncated
                self._position = 0
            file.seek(self._position)
            whole, end, _ = file.read(READ_BYTES).rpartition(b"\n")
        self._position += len(whole) + len(end)
        return whole.splitlines()


def parse(line: bytes) -> Record | None:
    """The record in a line, or None if the line is not a JSON record of our services."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and {"time", "level", "service", "message"} <= record.keys() else None


def format_record(record: Record, console: Console) -> str:
    """A record as one line: time, level, service, message, duration and trace id; below it the end of a traceback."""
    level, texts = escape(str(record["level"])), [escape(str(record["message"]))]
    if "duration_ms" in record:
        texts.append(escape(f"{record['duration_ms']} ms"))
    if "trace_id" in record:
        texts.append(console.paint(escape(str(record["trace_id"])), DIM))
    coloured = console.paint(f"{level:<7}", COLOURS[level]) if level in COLOURS else f"{level:<7}"
    time, service = escape(str(record["time"])[11:23]), escape(str(record["service"]))
    head = f"{time} {coloured} {service:<9}  {'  '.join(texts)}"
    return "\n  | ".join([head, *map(escape, last_of_traceback(record))])


def warnings(tails: Sequence[Tail], console: Console) -> list[str]:
    """The records logged so far with the level WARNING or higher, as lines."""
    records = (record for tail in tails for record in tail.records() if str(record["level"]) in COLOURS)
    return [format_record(record, console) for record in itertools.islice(records, MAX_RECORDS)]


async def follow(tails: Sequence[Tail], console: Console) -> NoReturn:
    """Prints new records in the order of their time, until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL)
        records = sorted(
            (record for tail in tails for record in tail.records()), key=lambda record: str(record["time"])
        )
        for record in records[:MAX_RECORDS]:
            console.say_escaped(format_record(record, console))
        if len(records) > MAX_RECORDS:
            console.say_escaped(console.paint(f"… and {len(records) - MAX_RECORDS} more", DIM))
