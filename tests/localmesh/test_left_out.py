"""The command of a service that is left out, run by a real shell."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from localmesh.left_out import command, write_environment
from localmesh.probe import accepts
from localmesh.program import Program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SETTINGS = {"TAX_URL": "sqlite:///a folder/tax's.db?x=$HOME&y=`z`", "OTEL_BSP_SCHEDULE_DELAY": "500"}
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def program(settings: Mapping[str, str]) -> Program:
    return Program("tax", (sys.executable, "-c", SHOW), {}, "127.0.0.1:1", accepts(1), settings)


def test_the_command_passes_the_settings_and_removes_other_otel_variables(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    write_environment(program(SETTINGS), folder)
    shell = {"PATH": "/usr/bin:/bin", "OTEL_SERVICE_NAME": "shell", "OTEL_BSP_SCHEDULE_DELAY": "1"}
    line = command(program(SETTINGS), folder, shell)
    assert "\n" not in line
    assert not [value for value in SETTINGS.values() if value in line], "it may be a password"
    done = subprocess.run(["/bin/sh", "-c", line], env=shell, check=True, capture_output=True, text=True)
    environment = json.loads(done.stdout)
    assert environment.items() >= SETTINGS.items()
    assert "OTEL_SERVICE_NAME" not in environment


def test_the_settings_are_in_a_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    write_environment(program(SETTINGS), tmp_path)
    path = tmp_path / "tax.env"
    assert path.read_text().splitlines() == [f"{name}={value}" for name, value in SETTINGS.items()]
    assert path.stat().st_mode & 0o777 == 0o600
