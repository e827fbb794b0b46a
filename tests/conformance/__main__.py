"""Rewrites the conformance tables in `docs/conformance.md`, from a number of contrib runs or from the recorded ones.

.venv/bin/python -m tests.conformance 20
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.conformance.cell import Cell
from tests.conformance.document import DOCUMENT, read_verdicts, render, section, verdict
from tests.conformance.processes import group_pool
from tests.conformance.table import cells

if TYPE_CHECKING:
    from tests.conformance.table import Ending, Row


def main(runs: int) -> None:
    """Rewrites the tables."""
    text = DOCUMENT.read_text()
    verdicts = classify(runs) if runs else read_verdicts(text)
    DOCUMENT.write_text(text.replace(section(text), render(verdicts)))


def classify(runs: int) -> dict[tuple[Row, Ending], str]:
    """The verdict on each cell."""
    every = cells()
    named = {f"{row}: {ending.name}": Cell(row, ending, "contrib", patience=3) for row, ending in every}
    with group_pool(16) as start:
        all_verdicts = [start(named) for _ in range(runs)]
        found = {name: [verdicts(name)[0] for verdicts in all_verdicts] for name in named}
    return {cell: verdict(found[name]) for cell, name in zip(every, named, strict=True)}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
