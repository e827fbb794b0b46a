"""Installs requirements.lock into `.venv`; needs only Python 3.11+ and a package index.

`python3 tools/bootstrap.py` finds uv on the PATH or installs it into `.tools/`, then installs the locked packages
(hashes checked) and the workspace members into `.venv`. A second run returns at once if nothing changed.
`python3 tools/bootstrap.py uv ARGUMENTS…` runs that uv.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
LOCK = ROOT / "requirements.lock"
MEMBERS = sorted(
    path.parent for folder in ("libs", "services", "tools") for path in ROOT.glob(f"{folder}/*/pyproject.toml")
)
UV = "uv>=0.9"
TOO_OLD = "aiomesh needs Python 3.11 or newer; {python} is {version}. Try: make PYTHON=python3.12 …"
NEITHER = """\
aiomesh needs pip or venv to install its packages, and this Python has neither: {python}
  Debian, Ubuntu:  apt-get install python3-venv
  Fedora:          dnf install python3-pip
  elsewhere:       {python} -m ensurepip, or a Python from python.org
then run the same command again."""


def main() -> None:
    """Brings the environment up to date, or runs uv with the given arguments."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C exits without a traceback; the next run reinstalls
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python may run this file
        sys.exit(TOO_OLD.format(python=sys.executable, version=sys.version.split()[0]))
    if sys.argv[1:2] == ["uv"]:
        os.execv(uv := find_uv(), [uv, *sys.argv[2:]])
    if not is_current():
        install(find_uv())


def fingerprint() -> str:
    """A digest of everything that determines the environment."""
    digest = hashlib.sha256(f"{sys.executable} {sys.version} {ROOT}".encode())
    for path in (LOCK, *(member / "pyproject.toml" for member in MEMBERS)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stamp() -> Path:
    """The file that records the installed fingerprint."""
    return VENV / "installed.sha256"


def is_current() -> bool:
    """Whether the environment matches the lock."""
    return stamp().is_file() and stamp().read_text() == fingerprint()


def find_uv() -> str:
    """The path of uv: from the PATH, or installed into `.tools/`."""
    own = TOOLS / "bin" / "uv"
    if not own.is_file():
        if on_path := shutil.which("uv"):
            return on_path
        install_uv()
    return str(own)


def install_uv() -> None:
    """Installs uv into `.tools/` with venv, or with pip if Python has no venv."""
    print("installing uv into .tools/ …", file=sys.stderr, flush=True)
    shutil.rmtree(TOOLS, ignore_errors=True)
    if importlib.util.find_spec("ensurepip") and succeeds(sys.executable, "-m", "venv", str(TOOLS)):
        run(str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet", UV)
    elif importlib.util.find_spec("pip"):
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(TOOLS), UV)
    else:
        sys.exit(NEITHER.format(python=sys.executable))


def install(uv: str) -> None:
    """Recreates `.venv` if its Python changed, and installs the lock and the members."""
    print("installing aiomesh into .venv/ …", file=sys.stderr, flush=True)
    stamp().unlink(missing_ok=True)
    run(uv, "venv", "--quiet", "--allow-existing", "--no-project", "--python", sys.executable, str(VENV))
    pip = (uv, "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python"))
    run(*pip, "--require-hashes", "--requirement", str(LOCK))
    run(
        *pip,
        "--no-deps",
        "--no-build-isolation",
        *(part for member in MEMBERS for part in ("--editable", str(member))),
    )
    stamp().write_text(fingerprint())


def succeeds(*command: str) -> bool:
    """Whether the command exits with status 0; discards its output."""
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def run(*command: str) -> None:
    """Runs the command; exits with its status if it fails."""
    if status := subprocess.run(command, check=False, cwd=ROOT).returncode:
        sys.exit(f"{' '.join(command[:4])} … failed with status {status}")


if __name__ == "__main__":
    main()
