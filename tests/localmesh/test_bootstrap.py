"""tools/bootstrap.py, which every target of the Makefile runs first."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.repository import ROOT


def test_an_interrupt_while_it_installs_ends_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "bootstrap.py", tmp_path / "tools")
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    slow_uv = tmp_path / "bin" / "uv"
    slow_uv.parent.mkdir()
    slow_uv.write_text("#!/bin/sh\necho begun\nexec sleep 60\n")
    slow_uv.chmod(0o755)
    installing = subprocess.Popen(
        [sys.executable, str(tmp_path / "tools" / "bootstrap.py")],
        env={**os.environ, "PATH": f"{slow_uv.parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert installing.stdout
    assert installing.stdout.readline() == "begun\n"
    os.killpg(installing.pid, signal.SIGINT)
    _, told = installing.communicate()
    assert (installing.returncode, told) == (-signal.SIGINT, "installing aiomesh into .venv/ …\n")
