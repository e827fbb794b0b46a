"""`make generate` says which files it wrote."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)  # it compiles all protos three times

MESSAGES = "libs/aiomesh_protos/src/aiomesh/inventory/v1/inventory_pb2.py"
ARTIFACTS = "skaffold.yaml"


def generate(copy: Path) -> list[str]:
    command = (sys.executable, "-m", "tools.generate")
    return subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True).stdout.splitlines()


def test_make_generate_names_exactly_the_written_files(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    assert generate(copy) == ["nothing changed"]
    (copy / MESSAGES).unlink()
    (copy / MESSAGES).with_name("left_over_pb2.py").touch()
    artifacts = (copy / ARTIFACTS).read_text()
    (copy / ARTIFACTS).write_text(artifacts.replace("SERVICE: inventory", "SERVICE: stock"))
    assert generate(copy) == [
        f"wrote {MESSAGES}",
        f"deleted {MESSAGES.replace('inventory_pb2', 'left_over_pb2')}",
        f"wrote {ARTIFACTS}",
    ]
    assert (copy / ARTIFACTS).read_text() == artifacts
