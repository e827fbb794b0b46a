"""What is where in this repository, for the tests of its contracts."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SOURCES = {
    "meshkit": ROOT / "libs" / "meshkit" / "src",
    "inventory": ROOT / "services" / "inventory" / "src",
    "pricing": ROOT / "services" / "pricing" / "src",
    "api_edge": ROOT / "services" / "api_edge" / "src",
    "localmesh": ROOT / "tools" / "localmesh" / "src",
}
"""The source folder of each package that people write; `aiomesh` is generated."""

SERVICES = ("inventory", "pricing", "api_edge")


def modules(package: str) -> dict[str, str]:
    """The source text of every module of a package by its dotted name; a package's own is that of its __init__."""
    folder = SOURCES[package]
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in sorted((folder / package).rglob("*.py"))
    }
