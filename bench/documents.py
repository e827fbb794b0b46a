"""Writes the results of `make bench WRITE=1` into the documents, between their markers."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench.report import GOAL_HEAD, HEAD, goal_rows, markdown, memory_rows, rows
from bench.variants import output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.goals import Goal
    from bench.report import Results

PICTURE = "images/product-read.svg"
MARKED = re.compile("(<!-- make bench -->\n).*(<!-- end of make bench -->\n)", re.DOTALL)
CAPTION = "The CPU of one product read, all processes, of the mesh and of other ways to do its work"


def write(
    root: Path, version: str, results: Results, goals: Sequence[Goal], *, memory: Mapping[str, int], svg: str
) -> None:
    """Replaces the tables of docs/performance.md, and the picture there and in the README.

    Args:
        root: the repository.
        version: what was measured, see `current_version`.
        results: the bursts.
        goals: what was reached.
        memory: the PSS of `make up`, in bytes, by variant.
        svg: the picture.
    """
    picture = root / "docs" / PICTURE
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(svg)
    _replace(root / "README.md", _picture("docs/"))
    tables = _tables(results, goals, memory)
    _replace(root / "docs/performance.md", "\n".join([_conditions(version), _picture(""), *tables]))


def current_version() -> str:
    """The commit that is checked out, and whether files differ from it."""
    changed = ", with changes" if output("git", "status", "--porcelain") else ""
    return f"commit {output('git', 'rev-parse', '--short', 'HEAD')}{changed}"


def _picture(folder: str) -> str:
    return f"![{CAPTION}]({folder}{PICTURE})\n"


def _conditions(version: str) -> str:
    day = datetime.now(UTC).date().isoformat()
    return f"Measured on {day} at {version}: Python {platform.python_version()}, {os.cpu_count()} cores.\n"


def _tables(results: Results, goals: Sequence[Goal], memory: Mapping[str, int]) -> list[str]:
    tables = [f"### Goals\n\n{markdown(GOAL_HEAD, goal_rows(goals))}"]
    for scenario, variants in results.items():
        tables.append(f"### {scenario.name[0].upper()}{scenario.name[1:]}\n\n{markdown(HEAD, rows(variants))}")
    if memory:
        tables.append(f"### Memory of `make up`\n\n{markdown(('', 'PSS, MB'), memory_rows(memory))}")
    return tables


def _replace(document: Path, content: str) -> None:
    text, number = MARKED.subn(lambda found: found[1] + content + found[2], document.read_text())
    if number != 1:
        raise ValueError(f"{document.name} has {number} places for the results of make bench, not one")
    document.write_text(text)
