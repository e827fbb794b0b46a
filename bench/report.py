"""The tables of `make bench`, as text and as Markdown, and its figures as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.goals import Goal
    from bench.load import Burst, Scenario

    Results = Mapping[Scenario, Mapping[str, Sequence[Burst]]]

GOAL_HEAD = ("goal", "must be at most", "aim", "measured", "")


class Row(NamedTuple):
    """One variant in a table: medians of its bursts; CPU in µs per request, MB resident, at most."""

    variant: str
    cpu: str
    spread: str
    edge: str
    stock: str
    price: str
    rate: str
    p50: str
    p99: str
    memory: str
    failed: str


HEAD = Row("", "CPU µs", "spread", "edge", "stock", "price", "req/s", "p50 ms", "p99 ms", "MB", "failed")


def rows(variants: Mapping[str, Sequence[Burst]]) -> list[Row]:
    """The rows of one scenario."""
    return [_row(name, bursts) for name, bursts in variants.items()]


def _row(name: str, bursts: Sequence[Burst]) -> Row:
    totals = sorted(each.total for each in bursts)

    def share(role: str) -> str:
        return f"{median(each.cpu.get(role, 0.0) for each in bursts):.0f}"

    return Row(
        variant=name,
        cpu=f"{median(totals):.0f}",
        spread=f"{totals[0]:.0f} to {totals[-1]:.0f}",
        edge=share("edge"),
        stock=share("inventory"),
        price=share("pricing"),
        rate=f"{median(each.rate for each in bursts):.0f}",
        p50=f"{median(each.p50 for each in bursts):.1f}",
        p99=f"{median(each.p99 for each in bursts):.1f}",
        memory=f"{max(each.memory for each in bursts) / 2**20:.0f}",
        failed=str(sum(each.failures for each in bursts)),
    )


def goal_rows(goals: Iterable[Goal]) -> list[tuple[str, ...]]:
    """The rows of the goals."""
    return [
        (
            goal.name,
            f"{goal.must:g}",
            f"{goal.aim:g}",
            "-" if goal.measured is None else f"{goal.measured:.3g}",
            _mark(goal),
        )
        for goal in goals
    ]


def _mark(goal: Goal) -> str:
    if goal.measured is None:
        return "not measured"
    return "aim met" if goal.measured <= goal.aim else "met" if goal.measured <= goal.must else "missed"


def memory_rows(memory: Mapping[str, int]) -> list[tuple[str, ...]]:
    """The rows of the memory of `make up`."""
    return [(name, f"{size / 2**20:.0f}") for name, size in memory.items()]


def text(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table with aligned columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    return "".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() + "\n"
        for row in (head, *body)
    )


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """The same in Markdown."""
    line = "|".join(["", " --- ", *[" ---: "] * (len(head) - 1), ""])
    return "\n".join([_cells(head), line, *map(_cells, body)]) + "\n"


def _cells(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def figures(results: Results, goals: Sequence[Goal], memory: Mapping[str, int]) -> str:
    """Every burst, every goal, and the PSS of `make up` in bytes, as JSON."""
    bursts = {
        scenario.name: {name: [asdict(burst) for burst in bursts] for name, bursts in variants.items()}
        for scenario, variants in results.items()
    }
    document = {"scenarios": bursts, "goals": [goal._asdict() for goal in goals], "make up": memory}
    return json.dumps(document, indent=1) + "\n"
