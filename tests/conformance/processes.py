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
from tests.conformance.observing import Fault, Observation, faults
from tests.conformance.table import TOO_LATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess

    from tests.conformance.cell import Cell

LIMIT = 10.0
"""Seconds that a cell may take in addition to its patience."""

Verdict: TypeAlias = "tuple[frozenset[Fault], Observation | None]"

_context = multiprocessing.get_context("forkserver")
_children = threading.Lock()
"""Locks starts and closes, because a start polls all children and fails on one that another thread is closing."""


@contextmanager
def cell_pool(workers: int) -> Iterator[Callable[[Cell], Future[Verdict]]]:
    """Yields a function that starts a cell and returns the future of its verdict. `workers` cells run at a time."""
    _context.set_forkserver_preload(["tests.conformance.cell", "opentelemetry.instrumentation.grpc"])
    # The fork server of Python 3.11 finds the tests only by PYTHONPATH.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        environment.setenv("GRPC_VERBOSITY", "ERROR")
        forkserver.ensure_running()
    with ThreadPoolExecutor(workers) as pool:
        yield lambda cell: pool.submit(judge, cell)


def judge(cell: Cell) -> Verdict:
    """The faults of a cell, and its observed result."""
    try:
        observation = see(cell)
    except EOFError:  # the process has failed; its standard error has the reason
        return frozenset({Fault.CRASHES}), None
    return faults(observation, cell.outcome) if observation else frozenset({Fault.HANGS}), observation


def see(cell: Cell) -> Observation | None:
    """The observed result of a cell; None if it does not end.

    If a busy machine delays a request too long, the client's deadline differs from the server's, and a cell that
    compares the two proves nothing, so it is repeated.
    """
    observation = _see(cell)
    late = observation is not None and (not observation.started or observation.remaining > TRANSIT)
    return see(cell) if late and cell.outcome is TOO_LATE and cell.instrumentation == "native" else observation


def _see(cell: Cell) -> Observation | None:
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
