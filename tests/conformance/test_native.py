"""The conformance table of RPC traces, on meshkit's own instrumentation: see `table.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.cell import Cell
from tests.conformance.processes import cell_pool
from tests.conformance.table import cells

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from tests.conformance.processes import Verdict

pytestmark = pytest.mark.timeout(120)

CELLS = {f"{row}: {ending.name}": Cell(row, ending, "native", patience=20) for row, ending in cells()}


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Verdict]]]:
    """The verdict on each selected cell."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    names = [
        str(item.callspec.params["cell"]) for item in items if item.originalname == "test_a_call_leaves_a_true_trace"
    ]
    with cell_pool(6) as start:
        yield {name: start(CELLS[name]) for name in names}


@pytest.mark.parametrize("cell", CELLS)
def test_a_call_leaves_a_true_trace(cell: str, verdicts: dict[str, Future[Verdict]]) -> None:
    faults, observation = verdicts[cell].result()
    assert not faults, observation
