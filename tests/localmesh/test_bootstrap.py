"""tools/bootstrap.py, which every target of the Makefile runs first."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.repository import ROOT


def test_an_interrupt_during_the_installation_exits_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "bootstrap.py", tmp_path / "tools")
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    slow_uv = tmp_path / "bin" / "uv"
    slow_uv.parent.mkdir()
    slow_uv.write_text("#!/bin/sh\necho started\nexec sleep 60\n")
    slow_uv.chmod(0o755)
    installation = subprocess.Popen(
        [sys.executable, str(tmp_path / "tools" / "bootstrap.py")],
        env={**os.environ, "PATH": f"{slow_uv.parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert installation.stdout
    assert installation.stdout.readline() == "started\n"
    os.killpg(installation.pid, signal.SIGINT)
    _, errors = installation.communicate()
    assert (installation.returncode, errors) == (-signal.SIGINT, "installing aiomesh into .venv/ …\n")
