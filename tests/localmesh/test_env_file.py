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


def test_the_example_file_contains_only_comments() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(not line or line.startswith("# ") for line in lines)
