"""The log files of children: their size limit and their last lines."""

import json
import os
from pathlib import Path

import pytest

from localmesh.logs import LINE_WIDTH, Log, readable

pytestmark = pytest.mark.unit


def written(log: Log, text: str) -> Log:
    descriptor = log.open()
    os.write(descriptor, text.encode())
    os.close(descriptor)
    return log


def test_the_last_lines_are_those_of_the_current_process(tmp_path: Path) -> None:
    log = written(Log(tmp_path / "a.log"), "first life\n")
    written(log, "".join(f"{number}\n" for number in range(20)))
    assert log.last_lines(3) == ["17", "18", "19"]
    written(log, "")
    assert log.last_lines() == []


def test_the_log_of_the_previous_mesh_is_kept(tmp_path: Path) -> None:
    written(Log(tmp_path / "a.log"), "yesterday\n")
    written(Log(tmp_path / "a.log"), "today\n")
    assert (tmp_path / "a.1.log").read_text() == "yesterday\n"
    assert (tmp_path / "a.log").read_text() == "today\n"


def test_a_log_beyond_its_limit_moves_while_a_process_writes_to_it(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.log")
    descriptor = log.open()
    os.write(descriptor, b"long line\n")
    log.bound(limit=100)
    assert not (tmp_path / "a.1.log").exists()
    log.bound(limit=5)
    os.write(descriptor, b"next\n")
    os.close(descriptor)
    assert (tmp_path / "a.1.log").read_text() == "long line\n"
    assert (tmp_path / "a.log").read_text() == "next\n"
    assert log.last_lines() == ["next"]


def test_a_very_long_line_is_cut_and_invalid_bytes_are_skipped(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.log")
    descriptor = log.open()
    os.write(descriptor, b"\xff\n" + b"x" * 50_000)
    os.close(descriptor)
    assert log.last_lines() == ["x" * LINE_WIDTH + "…"]


def test_a_process_that_never_started_has_no_last_lines(tmp_path: Path) -> None:
    assert Log(tmp_path / "a.log").last_lines() == []


def test_a_json_line_becomes_readable_with_the_end_of_its_traceback() -> None:
    line = json.dumps(
        {
            "time": "2026-11-24T06:13:04.125+00:00",
            "level": "ERROR",
            "message": "GetPrice failed",
            "exception": "Traceback (most recent call last):\n  a\n  b\n  c\n  d\nValueError: no",
        }
    )
    assert readable(line) == ["06:13:04 ERROR GetPrice failed", "  b", "  c", "  d", "ValueError: no"]


@pytest.mark.parametrize("line", ["plain text", "{}", '{"time": 1, "level": 2, "message": 3}', "[1]", "null", '"a"'])
def test_any_other_line_is_shown_unchanged(line: str) -> None:
    assert readable(line) == [line]


def test_control_characters_of_a_crash_are_escaped_and_its_lines_stay_lines(tmp_path: Path) -> None:
    record = {
        "time": "2026-11-24T06:13:04",
        "level": "ERROR",
        "message": "GET /\x1b]0;x\x07",
        "exception": "a\n\x85b\n",
    }
    log = written(Log(tmp_path / "a.log"), f"raw \x1b[2J\u2028\r\n{json.dumps(record)}\n{'[' * 5_000}\n")
    *shown, deep = log.last_lines()
    assert shown == [r"raw \x1b[2J\u2028", r"06:13:04 ERROR GET /\x1b]0;x\x07", "a", r"\x85b"]
    assert deep.startswith("[[")
