"""Runs each group of cells in a short-lived process, forked from one that has imported everything."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import forkserver
from typing import TYPE_CHECKING, TypeAlias

import pytest

from meshkit.server.tracing import TRANSIT
from tests.conformance import scenes
from tests.conformance.observing import Fault, Observation, faults
from tests.conformance.table import REFUSED, TOO_LATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.process import BaseProcess

    from tests.conformance.cell import Cell, Group

LIMIT = 30.0
"""Seconds that a group may take in addition to its patience."""

REPEATS = 6
"""How often a cell is repeated whose call was too slow to prove anything, with twice the deadline, up to 4 s."""

Verdict: TypeAlias = "tuple[frozenset[Fault], Observation | None]"
Verdicts: TypeAlias = Callable[[str], Verdict]
"""Waits for the verdict on a cell, by its name."""

_context = multiprocessing.get_context("forkserver")
_children = threading.Lock()
"""Locks starts and closes, because a start polls all children and fails on one that another thread is closing."""


@contextmanager
def group_pool(workers: int) -> Iterator[Callable[[Mapping[str, Cell]], Verdicts]]:
    """Yields a function that starts named cells of one instrumentation. `workers` groups run at a time."""
    _context.set_forkserver_preload(["tests.conformance.scenes", "opentelemetry.instrumentation.grpc"])
    # The fork server of Python 3.11 finds the tests only by PYTHONPATH.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        environment.setenv("GRPC_VERBOSITY", "ERROR")
        forkserver.ensure_running()
    with ThreadPoolExecutor(workers) as pool:

        def start(cells: Mapping[str, Cell]) -> Verdicts:
            running: dict[str, tuple[Future[list[Verdict]], int]] = {}
            for names in groups(cells):
                group = pool.submit(judge, [cells[name] for name in names])
                running |= {name: (group, index) for index, name in enumerate(names)}

            def verdict(name: str) -> Verdict:
                group, index = running[name]
                return group.result()[index]

            return verdict

        yield start


def groups(cells: Mapping[str, Cell]) -> list[list[str]]:
    """The names of the cells, those with the same ending together.

    Apart are those that contrib never sends, for which the others would wait, and those whose handlers it never awaits,
    because Python's warning about that does not say which call it was.
    """

    def group(name: str) -> tuple[str, str, str, bool, bool, str]:
        cell = cells[name]
        alone = cell.method if cell.is_alone else ""
        provider, build = cell.provider.__module__, cell.build.__name__
        return cell.ending.name, provider, build, cell.is_never_sent, cell.is_never_awaited, alone

    return [list(names) for _, names in itertools.groupby(sorted(cells, key=group), group)]


def judge(group: Group) -> list[Verdict]:
    """The faults of each cell, and its observed result.

    If the process of a group fails or hangs, each of its cells is repeated in a process of its own.
    """
    observations = see(group)
    if not isinstance(observations, Fault):
        return [(faults(each, cell.outcome), each) for cell, each in zip(group, observations, strict=True)]
    if len(group) == 1:
        return [(frozenset({observations}), None)]
    return [verdict for cell in group for verdict in judge([cell])]


def see(group: Group, repeats: int = REPEATS) -> list[Observation] | Fault:
    """The observed result of each cell, or why there is none. Repeats the cells that prove nothing."""
    observations = _see(group)
    if isinstance(observations, Fault) or not repeats:
        return observations
    late = [index for index, cell in enumerate(group) if is_late(cell, observations[index])]
    if not late:
        return observations
    again = see([with_more_time(group[index]) for index in late], repeats - 1)
    if isinstance(again, Fault):
        return again
    later = dict(zip(late, again, strict=True))
    return [later.get(index, observation) for index, observation in enumerate(observations)]


def is_late(cell: Cell, observation: Observation) -> bool:
    """Whether a busy machine delayed the call so much that its ending is another one.

    A request that is sent late makes the client's deadline differ from the server's, or arrives after it.
    """
    if cell.outcome is REFUSED:
        return observation.caller != "DEADLINE_EXCEEDED" or (
            cell.instrumentation == "native" and not observation.server
        )
    if cell.outcome is not TOO_LATE or cell.is_never_sent:
        return False
    if cell.is_never_awaited:
        return not any(span.exceptions for span in observation.server)
    return observation.budget < 10 * TRANSIT or observation.remaining > TRANSIT


def with_more_time(cell: Cell) -> Cell:
    return replace(cell, ending=replace(cell.ending, timeout=min(2 * cell.ending.timeout, 4)))


def _see(group: Group) -> list[Observation] | Fault:
    ours, theirs = _context.Pipe()
    pipes = [ours, theirs]
    with ExitStack() as running:
        if target := scenes.PEERS.get(group[0].ending.caller):
            pipes += _context.Pipe()
            running.enter_context(_process(target, group, pipes[2]))
        running.enter_context(_process(scenes.run, group, theirs, *pipes[3:]))
        for pipe in pipes[1:]:  # so that a failed process closes the last end of its pipe
            pipe.close()
        running.callback(ours.close)
        if not ours.poll(max(cell.patience + cell.timeout for cell in group) + LIMIT):
            return Fault.HANGS
        try:
            observations: list[Observation] = ours.recv()
        except EOFError:  # the process has failed; its standard error has the reason
            return Fault.CRASHES
        return observations


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
