"""Runs the table against contrib and writes what it finds into `docs/telemetry.md`.

PYTHONPATH=tests .venv/bin/python -m rpc_conformance 20
"""

from __future__ import annotations

import sys

from rpc_conformance.cell import Cell
from rpc_conformance.document import DOCUMENT, render, section, verdict
from rpc_conformance.processes import side_by_side
from rpc_conformance.table import cells


def main(runs: int) -> None:
    """Classifies every cell by its runs."""
    every = cells()
    with side_by_side(16) as start:
        running = [start(Cell(*cell, "contrib", patience=3)) for _ in range(runs) for cell in every]
        found = [each.result()[0] for each in running]
    verdicts = {cell: verdict(found[index :: len(every)]) for index, cell in enumerate(every)}
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(text.replace(section(text), render(verdicts)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
