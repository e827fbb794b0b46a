"""The logs of a mesh as people read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from localmesh.console import Console
from localmesh.follow import Tail, shown

if TYPE_CHECKING:
    from pathlib import Path

RECORD = {"time": "2026-11-24T09:05:53.337+00:00", "level": "INFO", "service": "api_edge", "message": "listening"}


def line(**extra: Any) -> str:
    return json.dumps(RECORD | extra) + "\n"


def test_a_tail_begins_at_the_end_and_waits_for_whole_lines(tmp_path: Path) -> None:
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


def test_a_tail_goes_on_from_the_start_of_a_file_that_was_emptied(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    tail = Tail(log)
    log.write_text(line(message="a line that is long enough"))
    assert len(tail.records()) == 1
    log.write_text(line())
    assert [record["message"] for record in tail.records()] == ["listening"]


def test_lines_of_others_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    tail = Tail(log)
    log.write_bytes(b"plain\n[1]\n\xff\n" + b'{"level": "info", "msg": "of jaeger"}\n')
    assert tail.records() == []


def test_a_record_is_one_line_with_the_end_of_its_traceback_below() -> None:
    console = Console()
    assert shown(RECORD, console) == "09:05:53.337 INFO    api_edge   listening"
    failed = RECORD | {"level": "ERROR", "exception": "a\nb\nc\nd\nValueError: no"}
    assert shown(failed, console).splitlines()[1:] == ["  | b", "  | c", "  | d", "  | ValueError: no"]


def test_what_would_command_the_terminal_is_not_passed_on() -> None:
    told = shown(RECORD | {"message": "GET /\x1b[2J\x07\n 404"}, Console())
    assert told.endswith("GET /\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} 404")
