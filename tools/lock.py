"""Writes the hash-pinned locks: one for development, one for each service, one for each gateway.

`python tools/lock.py` adds new requirements and drops unneeded packages; every locked package keeps its version.
`python tools/lock.py upgrade` selects the newest versions that the projects allow.

A lock has the names, versions, markers and hashes of third-party packages, including the build backend, and no index
address, so uv and plain `pip --require-hashes` can use it behind any mirror. uv resolves in a copy of the projects,
with the current lock as the root's constraints. Its own `uv.lock`, which has addresses, is deleted with the copy.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from localmesh.services import read_services

ROOT = Path(__file__).resolve().parent.parent
UV = (sys.executable, str(ROOT / "tools" / "bootstrap.py"), "uv")
EXPORT = ("export", "--quiet", "--frozen", "--no-emit-workspace", "--no-header", "--no-annotate")
COMPILE = ("pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes")
WITHOUT = ("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links")
LOCK = "requirements.lock"
CONFLICT = """\
The locked versions conflict with the projects' requirements; uv names the package above. `make upgrade` selects newer
versions of all packages."""


def main() -> None:
    """Writes requirements.lock, services/*/requirements.lock and deploy/gateways/*/requirements.lock."""
    upgrade = sys.argv[1:] == ["upgrade"]
    with tempfile.TemporaryDirectory() as folder:
        copy = copied_projects(Path(folder), [] if upgrade else pins((ROOT / LOCK).read_text()))
        if run(copy, "lock"):
            sys.exit(None if upgrade else CONFLICT)
        export(copy, ROOT / LOCK, "--all-packages")
        for service in read_services():
            selection = ("--package", service.workload, "--group", "build")
            export(copy, ROOT / "services" / service.name / LOCK, *selection)
    for wanted in sorted(ROOT.glob("deploy/gateways/*/requirements.in")):
        compile_lock(wanted, *(("--upgrade",) if upgrade else ()))


def pins(lock: str) -> list[str]:
    """The requirements in a lock without hashes, such as `uvloop==0.23.0 ; sys_platform != 'win32'`."""
    return re.findall(r"^(\S+==[^\\\n]*?) *\\?$", lock, re.MULTILINE)


def copied_projects(target: Path, constraints: list[str]) -> Path:
    """Copies the project files; the root of the copy has these constraints."""
    for path in (ROOT / "pyproject.toml", *ROOT.glob("[!.]*/*/pyproject.toml")):
        (target / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / path.relative_to(ROOT))
    root = target / "pyproject.toml"
    constrained = f"[tool.uv]\nconstraint-dependencies = {json.dumps(constraints)}\n"
    root.write_text(root.read_text().replace("[tool.uv]\n", constrained, 1))
    return target


def export(copy: Path, lock: Path, *selection: str) -> None:
    """Writes one lock, or exits if it fails."""
    if status := run(copy, *EXPORT, *selection, "--output-file", str(lock)):
        sys.exit(status)


def compile_lock(wanted: Path, *options: str) -> None:
    """Writes the lock beside a `requirements.in`, whose packages need none of the project's, or exits if it fails."""
    lock = wanted.with_name(LOCK)
    if status := run(ROOT, *COMPILE, *WITHOUT, *options, "--output-file", str(lock), str(wanted)):
        sys.exit(status)


def run(folder: Path, *command: str) -> int:
    """Runs uv in a folder and returns its exit status."""
    return subprocess.run((*UV, *command), check=False, cwd=folder, stdout=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    main()
