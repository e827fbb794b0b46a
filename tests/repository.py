"""The packages, services and text files of this repository, for the contract tests."""

from __future__ import annotations

import os
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from localmesh.services import read_services

ROOT = Path(__file__).resolve().parent.parent

SOURCES = {
    package.parent.name: package.parent.parent
    for folder in ("libs", "services", "tools")
    for package in sorted(ROOT.glob(f"{folder}/*/src/*/__init__.py"))
}
"""The source folder of each hand-written package; `aiomesh` is generated."""

SERVICES = tuple(service.name for service in read_services(ROOT))


def modules(package: str) -> dict[str, str]:
    """The source text of every module of a package, by its dotted name; that of `__init__` has the package's name."""
    folder = SOURCES[package]
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in sorted((folder / package).rglob("*.py"))
    }


def texts() -> dict[Path, str]:
    """The text files of the repository, without those that .gitignore excludes."""
    ignored = {".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split())}
    found = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not _matches(name, ignored)]
        for path in (Path(folder, name) for name in files if not _matches(name, ignored)):
            with suppress(UnicodeDecodeError):
                found[path] = path.read_text(encoding="utf-8")
    return found


def _matches(name: str, patterns: set[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
