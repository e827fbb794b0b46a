"""`make up` also reads its settings from a file `.env`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def output(folder: Path, **variables: str) -> str:
    """The output of `make up` in a folder, with an invalid setting."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_PORT")} | variables
    process = subprocess.run(
        [sys.executable, "-m", "localmesh"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    return process.stdout


@pytest.mark.parametrize(
    ("variables", "invalid"),
    [({}, "TRACES_PORT=from-file"), ({"TRACES_PORT": "from-environment"}, "TRACES_PORT=from-environment")],
    ids=["file", "environment"],
)
def test_a_setting_comes_from_the_environment_or_else_from_the_file(
    tmp_path: Path, variables: dict[str, str], invalid: str
) -> None:
    (tmp_path / ".env").write_text("TRACES_PORT=from-file\n")
    assert output(tmp_path, **variables).startswith(f"{invalid}: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("EDGE_PORT 8090\n", '.env, line 1: "EDGE_PORT 8090" is not NAME=value\n'),
        ("# ports\nEDGE_PORT=80\n\n\nTRACES_PORT", '.env, line 5: "TRACES_PORT" is not NAME=value\n'),
        ("DATABASE_URL='s3cret\n", '.env, line 1: "DATABASE_URL=…" is not NAME=value\n'),
        (f"X {'y' * 90}", f'.env, line 1: "X {"y" * 38}…" is not NAME=value\n'),
        ("A 1\nB=2\nC 3\n", '.env, line 1: "A 1" is not NAME=value\n.env, line 3: "C 3" is not NAME=value\n'),
    ],
    ids=["no equals sign", "only a name", "open quote", "long", "two"],
)
def test_a_line_that_is_not_an_assignment_ends_the_start(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / ".env").write_text(text)
    assert output(tmp_path) == line


def test_comments_empty_lines_quotes_and_export_are_supported(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\n\nexport OTLP_PORT='4317' # another\nEMPTY=\nTRACES_PORT=from-file")
    assert output(tmp_path).startswith("TRACES_PORT=from-file: ")


def test_the_example_file_contains_only_comments() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(not line or line.startswith("# ") for line in lines)
