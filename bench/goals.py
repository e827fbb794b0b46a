"""What the mesh should cost, as ratios within one run: `must` is the limit, `aim` the wish.

A ratio is the median of those of the rounds: the two bursts of one round meet the machine in about the same state.
"""

from __future__ import annotations

from operator import truediv
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench.load import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.load import Burst

    Results = Mapping[Scenario, Mapping[str, Sequence[Burst]]]
    Read = Callable[[Burst], float]

CONSTANT_MICROSECONDS = 75
"""The CPU of the constant on the machine whose microseconds the goal of the edge means."""

BASE = "base"
"""The prefix of the name of the older commit's variant."""


class Goal(NamedTuple):
    """The limit of a ratio of two variants, a better value to aim at, and the measured one: None if not measured."""

    name: str
    must: float
    aim: float
    measured: float | None


def total(burst: Burst) -> float:
    """The CPU of all processes."""
    return burst.total


def edge(burst: Burst) -> float:
    """The CPU of the edge."""
    return burst.cpu["edge"]


def p99(burst: Burst) -> float:
    """The 99th percentile of the latency."""
    return burst.p99


def goals(results: Results, memory: Mapping[str, int], mesh: Sequence[str]) -> Iterator[Goal]:
    """The goals with their ratios. `memory` is the PSS of `make up` by variant, `mesh` the mesh's variants."""
    reads = {callers: Scenario("product", callers) for callers in (32, 8, 1)}

    def ratio(scenario: Scenario, one: str, other: str, read: Read = total) -> float | None:
        above, below = (results.get(scenario, {}).get(name) for name in (one, other))
        return median(map(truediv, map(read, above), map(read, below))) if above and below else None

    for callers, must, aim in ((32, 0.7, 0.55), (8, 1.3, 1.1), (1, 2.6, 2.3)):
        name = f"traced / aiohttp untraced, {_callers(callers)}"
        yield Goal(name, must, aim, ratio(reads[callers], "traced", "FastAPI to aiohttp"))
    yield Goal("untraced / FastAPI constant, 32 callers", 3.3, 2.8, ratio(reads[32], "untraced", "FastAPI constant"))
    of_edge = ratio(reads[32], "traced", "FastAPI constant", edge)
    name = f"CPU of the edge, traced, 32 callers: µs where the constant takes {CONSTANT_MICROSECONDS}"
    yield Goal(name, 200, 170, of_edge and of_edge * CONSTANT_MICROSECONDS)
    of_traces = ratio(reads[32], "traced", "untraced")
    yield Goal("(traced - untraced) / untraced, 32 callers", 0.3, 0.2, of_traces and of_traces - 1)
    yield Goal("traced / contrib without batching, 32 callers", 0.2, 0.15, ratio(reads[32], "traced", "contrib"))
    for callers, must, aim in ((32, 0.6, 0.5), (8, 1.5, 1.0), (1, 4.0, 2.0)):
        name = f"p99 traced / p99 of plain grpc.aio untraced, {_callers(callers)}"
        yield Goal(name, must, aim, ratio(reads[callers], "traced", "plain grpc.aio", p99))
    older = next((name for name in mesh if name.startswith(BASE)), BASE)
    yield Goal("order / base", 0.65, 0.5, ratio(Scenario("order", 8), "traced", older))
    yield Goal("page of 100 / base, 8 callers", 0.55, 0.4, ratio(Scenario("page", 8, size=100), "traced", older))
    of_memory = memory["traced"] / memory[older] if older in memory else None
    yield Goal("PSS under `make up` / base", 1.0, 0.9, of_memory)


def _callers(number: int) -> str:
    return f"{number} callers" if number > 1 else "one caller"
