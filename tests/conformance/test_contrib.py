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
from tests.conformance.processes import group_pool, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.processes import Verdict, Verdicts

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
def verdicts() -> Iterator[Verdicts]:
    """The verdict on each cell."""
    with group_pool(12) as start:
        yield start(CELLS)


def verdict_on(name: str, verdicts: Verdicts) -> Verdict:
    """The verdict on a cell; repeats the call if closing its channel failed, which happens sometimes."""
    faults, observation = verdicts(name)
    return judge([CELLS[name]])[0] if Fault.CRASHES in faults else (faults, observation)


@pytest.mark.parametrize("cell", [expected_failure(name) for name in CELLS])
def test_a_call_leaves_a_true_trace(cell: str, verdicts: Verdicts) -> None:
    faults, observation = verdict_on(cell, verdicts)
    assert not faults, observation


def test_the_document_lists_the_faults(verdicts: Verdicts) -> None:
    """Does not distinguish a span with a wrong status (small letter) from one that ends too late (capital).

    Repeats a cell that lacks a fault, because a call that a busy machine delays ends in another way.
    """
    lacking = {name: missing_signs(name, verdict_on(name, verdicts)) for name in CELLS}
    for _ in range(2):
        lacking = {name: signs and missing_signs(name, judge([CELLS[name]])[0]) for name, signs in lacking.items()}
    assert not {name: signs for name, signs in lacking.items() if signs}


def missing_signs(name: str, verdict: Verdict) -> set[str]:
    """The signs in the document of faults that are not in a verdict."""
    return signs_of(name) - {fault.casefold() for fault in verdict[0]}


def signs_of(name: str) -> set[str]:
    verdict = RECORD[CELLS[name].row, CELLS[name].ending]
    return set(verdict.removesuffix(VARIES).casefold()) - {CLEAN}


def test_the_document_has_the_tables_of_these_tests() -> None:
    assert section(TEXT) == render(read_verdicts(TEXT))
