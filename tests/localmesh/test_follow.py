"""The logs of a mesh in readable form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from localmesh.console import Console
from localmesh.follow import Tail, format_record

if TYPE_CHECKING:
    from pathlib import Path

RECORD = {"time": "2026-11-24T09:05:53.337+00:00", "level": "INFO", "service": "api_edge", "message": "listening"}


def line(**extra: Any) -> str:
    return json.dumps(RECORD | extra) + "\n"


def test_a_tail_starts_at_the_end_of_the_file_and_returns_complete_lines(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(line(message="before"))
    tail = Tail(log)
    with log.open("a") as file:
        file.write(line(message="one") + line(message="two")[:20])
        file.flush()
        assert [record["message"] for record in tail.records()] == ["one"]
        file.write(line(message="two")[20:])
    assert [record["message"] for record in tail.records()] == ["two"]
    assert tail.records() == []


def test_a_tail_continues_at_the_start_of_a_truncated_file(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    tail = Tail(log)
    log.write_text(line(message="a line that is long enough"))
    assert len(tail.records()) == 1
    log.write_text(line())
    assert [record["message"] for record in tail.records()] == ["listening"]


def test_lines_of_other_programs_are_skipped(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    tail = Tail(log)
    log.write_bytes(b"plain\n[1]\n\xff\n" + b'{"level": "info", "msg": "of jaeger"}\n')
    assert tail.records() == []


def test_a_record_is_one_line_followed_by_the_end_of_its_traceback() -> None:
    console = Console()
    assert format_record(RECORD, console) == "09:05:53.337 INFO    api_edge   listening"
    failed = RECORD | {"level": "ERROR", "exception": "a\nb\nc\nd\nValueError: no"}
    assert format_record(failed, console).splitlines()[1:] == ["  | b", "  | c", "  | d", "  | ValueError: no"]


def test_control_characters_are_escaped_in_every_field() -> None:
    foreign = dict.fromkeys(("level", "service", "message", "trace_id", "duration_ms", "exception"), "\x1b[2J")
    shown = format_record(RECORD | foreign | {"time": "\x1b" * 30}, Console())
    assert shown.replace("\n", "").isprintable()
    assert shown.count(r"\x1b[2J") == len(foreign)
    assert format_record(RECORD | {"message": "a\nb"}, Console()).endswith(r"a\nb")
