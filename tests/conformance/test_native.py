"""The conformance table of RPC traces, on meshkit's own instrumentation: see `table.py`.

Every cell is tested again with the spans of the SDK, which a library's user may choose, and every cell with one request
and one response, as all methods of the edge, on the server that the edge builds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk import trace as sdk

from tests.conformance.cell import Cell
from tests.conformance.processes import group_pool
from tests.conformance.table import cells
from tests.edge.rpc_server import build_edge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.processes import Verdicts

pytestmark = pytest.mark.timeout(300)

CELLS = {f"{row}: {ending.name}": Cell(row, ending, "native", patience=20) for row, ending in cells()}
CELLS |= {
    f"{row}: {ending.name}, spans of the SDK": Cell(row, ending, "native", patience=20, provider=sdk.TracerProvider)
    for row, ending in cells()
}
CELLS |= {
    f"{row}: {ending.name}, on the edge": Cell(row, ending, "native", patience=20, build=build_edge)
    for row, ending in cells()
    if row.arity == "unary-unary"
}


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Iterator[Verdicts]:
    """The verdict on each selected cell."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    names = [
        str(item.callspec.params["cell"]) for item in items if item.originalname == "test_a_call_leaves_a_true_trace"
    ]
    with group_pool(4) as start:
        yield start({name: CELLS[name] for name in names})


@pytest.mark.parametrize("cell", CELLS)
def test_a_call_leaves_a_true_trace(cell: str, verdicts: Verdicts) -> None:
    faults, observation = verdicts(cell)
    assert not faults, observation
