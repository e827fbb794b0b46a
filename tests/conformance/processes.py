"""Runs each cell in a short-lived process, forked from one that has imported everything: 25 ms each."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import forkserver
from typing import TYPE_CHECKING, TypeAlias

import pytest

from meshkit.server.tracing import TRANSIT
from tests.conformance import cell as cells
from tests.conformance.observing import Fault, Seen, faults
from tests.conformance.table import TOO_LATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess

    from tests.conformance.cell import Cell

LIMIT = 10.0
"""Seconds that a cell may take in addition to its patience."""

Verdict: TypeAlias = "tuple[frozenset[Fault], Seen | None]"

_context = multiprocessing.get_context("forkserver")
_children = threading.Lock()
"""Each start looks at all children of the process, and finds those broken that another thread is closing."""


@contextmanager
def side_by_side(workers: int) -> Iterator[Callable[[Cell], Future[Verdict]]]:
    """Lends what starts a cell and answers what will come of it; so many run at a time, and mostly wait."""
    _context.set_forkserver_preload(["tests.conformance.cell", "opentelemetry.instrumentation.grpc"])
    # Nothing else tells the fork server of Python 3.11 where the tests are.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        environment.setenv("GRPC_VERBOSITY", "ERROR")
        forkserver.ensure_running()
    with ThreadPoolExecutor(workers) as pool:
        yield lambda cell: pool.submit(judged, cell)


def judged(cell: Cell) -> Verdict:
    """The faults of a cell, and its observed result."""
    try:
        seen = see(cell)
    except EOFError:  # the process has failed; its standard error has the reason
        return frozenset({Fault.CRASHES}), None
    return faults(seen, cell.outcome) if seen else frozenset({Fault.HANGS}), seen


def see(cell: Cell) -> Seen | None:
    """The observed result of a cell; None if it does not end.

    If a busy machine delays a request too long, the client's deadline differs from the server's, and a cell that
    compares the two proves nothing, so it is repeated.
    """
    seen = _see(cell)
    late = seen is not None and (not seen.begun or seen.left > TRANSIT)
    return see(cell) if late and cell.outcome is TOO_LATE and cell.instrumentation == "native" else seen


def _see(cell: Cell) -> Seen | None:
    ours, theirs = _context.Pipe()
    pipes = [ours, theirs]
    with ExitStack() as running:
        if cell.ending.caller in cells.PEERS:
            pipes += _context.Pipe()
            running.enter_context(_process(cells.PEERS[cell.ending.caller], cell, pipes[2]))
        running.enter_context(_process(cells.run, cell, theirs, *pipes[3:]))
        for pipe in pipes[1:]:  # so that a failed process closes the last end of its pipe
            pipe.close()
        running.callback(ours.close)
        return ours.recv() if ours.poll(cell.patience + cell.ending.timeout + LIMIT) else None


@contextmanager
def _process(target: Callable[..., None], *arguments: object) -> Iterator[BaseProcess]:
    process = _context.Process(target=target, args=arguments)
    with _children:
        process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        with _children:
            process.close()
