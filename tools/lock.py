"""Resolves all dependencies and writes the hash-pinned locks: one for development, one for each service.

A lock holds names, versions, markers and hashes of third-party packages, build backend included, and no index
address, so that uv and plain `pip --require-hashes` read it behind any mirror. `uv.lock` holds addresses and is
not committed.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = (sys.executable, str(ROOT / "tools" / "bootstrap.py"), "uv")
EXPORT = ("export", "--quiet", "--frozen", "--no-emit-workspace", "--no-header", "--no-annotate")
SERVICES = ("inventory", "pricing", "api_edge")


def main() -> None:
    """Writes requirements.lock and services/*/requirements.lock."""
    subprocess.run((*UV, "lock", "--upgrade", *sys.argv[1:]), check=True, cwd=ROOT)
    export(ROOT / "requirements.lock", "--all-packages")
    for service in SERVICES:
        package = service.replace("_", "-")
        export(ROOT / "services" / service / "requirements.lock", "--package", package, "--group", "build")


def export(lock: Path, *selection: str) -> None:
    """Writes one lock."""
    subprocess.run((*UV, *EXPORT, *selection, "--output-file", str(lock)), check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
