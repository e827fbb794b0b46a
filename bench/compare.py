"""What does a request cost, beside the same work done otherwise? CPU, rate, latency and memory of every variant.

    make bench              one product read by 32, 8 and 1 callers, pages, orders, memory: eleven minutes
    make bench QUICK=1      one product read by 32 callers: two minutes
    make bench FULL=1       also pages of 10 and 50, 128 and 512 callers, two edges, PostgreSQL: an hour
    make bench BASE=v0.1    an older commit of this repository as one more variant
    make bench WRITE=1      writes the tables and the picture into docs/performance.md and the README

All variants run at the same time, as real processes, and bursts of load alternate between them: forwards in one round,
backwards in the next. CPU is what the processes' own clocks say. A cell is the median of the rounds, a goal that of the
ratios of each round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import tempfile
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import documents
from bench.goals import goals
from bench.load import Burst, Scenario, burst
from bench.memory import pss_of_make_up
from bench.picture import picture
from bench.postgres import has_postgres
from bench.report import GOAL_HEAD, HEAD, figures, goal_rows, memory_rows, rows, text
from bench.variants import MESH, MORE_MESH, REPOSITORY, RIVALS, base, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report import Results
    from bench.variants import Running, Variant

READS = [Scenario("product", callers) for callers in (32, 8, 1)]
OTHERS = [Scenario("page", 8, size=100), Scenario("order", 8)]
MORE = [
    *(Scenario("product", callers) for callers in (128, 512)),
    *(
        Scenario("page", callers, size=size)
        for size, callers in itertools.product((10, 50, 100), (1, 8, 32, 128, 512))
        if (size, callers) != (100, 8)
    ),
]
ONLY_PRODUCTS = {"unsampled", "contrib"}
"""The variants of the mesh that, as the rivals, only read single products."""

SAMPLES = list(itertools.product((1, 7, 12, 100), ("EUR", "JPY", "USD")))
"""Quantities and currencies of the bodies that are compared."""


def get(running: Running, path: str) -> Any:
    """The JSON at a path of a variant."""
    with urllib.request.urlopen(running.urls[0] + path, timeout=10) as response:  # noqa: S310 - our own servers
        return json.load(response)


def check_bodies(variants: Sequence[Running], skus: Sequence[str]) -> None:
    """Ends the program if a variant answers something else than the first does; the constant is what it is."""
    for number, (quantity, currency) in enumerate(SAMPLES):
        path = f"/v1/products/{skus[number * 7 % len(skus)]}?quantity={quantity}&currency={currency}"
        expected, *others = [get(each, path) for each in variants if each.variant.rival != "constant"]
        for body in others:
            if body != expected:
                sys.exit(f"{path}: {body} is not {expected}")


def measure(
    variants: Sequence[Running], scenarios: Sequence[Scenario], rounds: int, seconds: int, skus: Sequence[str]
) -> Iterator[tuple[Scenario, Running, Burst]]:
    """The bursts of all rounds; the first round warms up and does not count."""
    for scenario in scenarios:
        asked = [each for each in variants if scenario.kind == "product" or _has_all_routes(each.variant)]
        for number in range(rounds + 1):
            for each in asked if number % 2 else reversed(asked):
                result = burst(each, scenario, seconds, skus)
                if number:
                    yield scenario, each, result
        sys.stderr.write(f"measured: {scenario.name}\n")


def _has_all_routes(variant: Variant) -> bool:
    return not variant.rival and variant.name not in ONLY_PRODUCTS


def main() -> None:
    """Prints the tables, and saves them with their figures and a picture."""
    options = _options()
    _check_machine()
    mesh = [*MESH, *([base(options.base)] if options.base else []), *(_more_mesh() if options.full else [])]
    memory = {} if options.quick else {each.name: pss_of_make_up(each.repository) for each in mesh if _counts(each)}
    results = _results([*mesh, *RIVALS], options)
    reached = list(goals(results, memory, [each.name for each in mesh]))
    scenario, variants = next(iter(results.items()))
    svg = picture(scenario.name, variants)
    tables = [f"{scenario.name}\n{text(HEAD, rows(variants))}" for scenario, variants in results.items()]
    if memory:
        tables.append(f"memory of make up\n{text(('', 'PSS, MB'), memory_rows(memory))}")
    tables.append(f"goals\n{text(GOAL_HEAD, goal_rows(reached))}")
    sys.stdout.write("\n".join(tables))
    options.save.mkdir(parents=True, exist_ok=True)
    (options.save / "results.txt").write_text("\n".join(tables))
    (options.save / "results.json").write_text(figures(results, reached, memory))
    (options.save / "product-read.svg").write_text(svg)
    if options.write:
        documents.write(REPOSITORY, documents.current_version(), results, reached, memory=memory, svg=svg)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--base", default="", metavar="COMMIT")
    parser.add_argument("--save", type=Path, default=Path(".bench/results"), metavar="FOLDER")
    return parser.parse_args()


def _check_machine() -> None:
    """Ends the program without wrk; warns if other programs keep the machine busy."""
    if not shutil.which("wrk"):
        sys.exit("make bench needs wrk (Debian and Ubuntu: apt-get install wrk; macOS: brew install wrk)")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 4:
        sys.stderr.write(f"the machine is busy (load {load:.1f} on {cores} cores): the figures will be too high\n")


def _more_mesh() -> Sequence[Variant]:
    if has_postgres():
        return MORE_MESH
    sys.stderr.write("PostgreSQL is not installed: its variant is left out\n")
    return [each for each in MORE_MESH if not each.has_postgres]


def _counts(variant: Variant) -> bool:
    """Whether the memory of `make up` is measured: once for each checkout."""
    return variant.name == MESH[0].name or variant.repository != MESH[0].repository


def _results(chosen: Sequence[Variant], options: argparse.Namespace) -> Results:
    scenarios = READS[:1] if options.quick else [*READS, *OTHERS, *(MORE if options.full else [])]
    rounds, seconds = (3 if options.quick else 8), 1
    results: dict[Scenario, dict[str, list[Burst]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as directory, running(chosen, Path(directory)) as variants:
        skus = [product["sku"] for product in get(variants[0], "/v1/products?page_size=100")["products"]]
        check_bodies(variants, skus)
        for scenario, each, result in measure(variants, scenarios, rounds, seconds, skus):
            results[scenario][each.variant.name].append(result)
    return results


if __name__ == "__main__":
    main()
