"""On a terminal, `make up` shows the log records of the services."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.localmesh.fakes.running import DRIVER, MeshProcess, fake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

YELLOW, DIM, PLAIN = "\033[33m", "\033[2m", "\033[0m"
TRACE = "47010f518938cd685e324014ebc1b521"


@contextmanager
def terminal(directory: Path, child: dict[str, object], **environment: str) -> Iterator[int]:
    """Starts a mesh of one child on a new terminal; yields the terminal."""
    screen, line = pty.openpty()
    specification = json.dumps({"stages": [[child]], "patience": {}})
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        [sys.executable, str(DRIVER), str(directory / "state"), specification],
        stdin=subprocess.DEVNULL,
        stdout=line,
        stderr=line,
        env=inherited | environment,
        start_new_session=True,
    ) as process:
        os.close(line)
        try:
            yield screen
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            os.close(screen)


def read_until(screen: int, text: str) -> str:
    """The output of the terminal up to the end of a line with `text`."""
    shown = ""
    while not re.search(rf"{text}.*\n", shown):
        shown += os.read(screen, 4096).decode()
    return shown


def make_it_log(child: dict[str, object]) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{child['port']}/log") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, f"09:05:53.337 {YELLOW}WARNING{PLAIN} pricing    Get INTERNAL  6.5 ms  {DIM}{TRACE}{PLAIN}\r\n"),
        ({"NO_COLOR": "1"}, f"09:05:53.337 WARNING pricing    Get INTERNAL  6.5 ms  {TRACE}\r\n"),
    ],
)
def test_a_terminal_shows_log_records_in_colour_unless_no_color_is_set(
    tmp_path: Path, environment: dict[str, str], expected: str
) -> None:
    child = fake("pricing")
    with terminal(tmp_path, child, **environment) as screen:
        read_until(screen, "WELCOME")
        make_it_log(child)
        shown = read_until(screen, TRACE)
    assert expected in shown
    assert "writes plain text" not in shown


def test_a_pipe_gets_no_log_records(tmp_path: Path) -> None:
    child = fake("pricing")
    with MeshProcess(tmp_path, [[child]]) as running:
        running.read_until("ready in")
        make_it_log(child)
        running.process.send_signal(signal.SIGINT)
        running.read_until("exited with status 0")
        assert TRACE in (tmp_path / "state" / "logs" / "pricing.log").read_text()
    assert not [line for line in running.printed if TRACE in line]
