"""The conformance table of RPC traces on opentelemetry-instrumentation-grpc: it fails as `docs/conformance.md` records.

A strict expected failure reports when contrib is fixed. Cells that fail only in some of the recorded runs are not
tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.cell import Cell
from tests.conformance.document import CLEAN, DOCUMENT, UNSTABLE, VARIES, read_verdicts, render, section
from tests.conformance.observing import Fault
from tests.conformance.processes import cell_pool, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from tests.conformance.processes import Verdict

pytestmark = pytest.mark.timeout(300)

TEXT = DOCUMENT.read_text()
RECORD = {cell: verdict for cell, verdict in read_verdicts(TEXT).items() if verdict != UNSTABLE}
MISSING = {Fault.NO_CLIENT_SPAN, Fault.NO_SERVER_SPAN, Fault.HANDLER_GOES_ON, VARIES}
"""Signs of missing events, for which waiting is useless."""

CELLS = {
    f"{row}: {ending.name}": Cell(row, ending, "contrib", patience=3 if MISSING & set(verdict) else 20)
    for (row, ending), verdict in RECORD.items()
}


def expected_failure(name: str) -> Any:
    verdict = RECORD[CELLS[name].row, CELLS[name].ending]
    fails = pytest.mark.xfail(raises=AssertionError, strict=True, reason=verdict)
    return pytest.param(name, marks=() if verdict == CLEAN else fails)


@pytest.fixture(scope="module")
def verdicts() -> Iterator[dict[str, Future[Verdict]]]:
    """The verdict on each cell."""
    with cell_pool(24) as start:
        yield {name: start(cell) for name, cell in CELLS.items()}


def verdict_on(name: str, verdicts: dict[str, Future[Verdict]]) -> Verdict:
    """The verdict on a cell; repeats the call if closing its channel failed, which happens sometimes."""
    faults, observation = verdicts[name].result()
    return judge(CELLS[name]) if Fault.CRASHES in faults else (faults, observation)


@pytest.mark.parametrize("cell", [expected_failure(name) for name in CELLS])
def test_a_call_leaves_a_true_trace(cell: str, verdicts: dict[str, Future[Verdict]]) -> None:
    faults, observation = verdict_on(cell, verdicts)
    assert not faults, observation


def test_the_document_lists_the_faults(verdicts: dict[str, Future[Verdict]]) -> None:
    """Does not distinguish a span with a wrong status (small letter) from one that ends too late (capital)."""
    found = {name: {fault.casefold() for fault in verdict_on(name, verdicts)[0]} for name in CELLS}
    missing = {name: signs_of(name) - signs for name, signs in found.items()}
    assert not {name: signs for name, signs in missing.items() if signs}


def signs_of(name: str) -> set[str]:
    verdict = RECORD[CELLS[name].row, CELLS[name].ending]
    return set(verdict.removesuffix(VARIES).casefold()) - {CLEAN}


def test_the_document_has_the_tables_of_these_tests() -> None:
    assert section(TEXT) == render(read_verdicts(TEXT))
