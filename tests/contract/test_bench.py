"""The goals of `make bench`, and where it writes its results."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench import documents
from bench.goals import goals
from bench.load import Burst, Scenario, shares
from bench.picture import picture
from bench.relay import relay
from bench.report import GOAL_HEAD, HEAD, goal_rows, markdown, rows, text
from bench.variants import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

PRODUCT, ORDER = Scenario("product", 32), Scenario("order", 8)


def burst(edge: float, others: float = 0.0, p99: float = 1.0) -> Burst:
    cpu = dict(edge=edge, inventory=others, pricing=others)  # noqa: C408 - names, not a list of the services
    return Burst(cpu, rate=100.0, p50=1.0, p99=p99, memory=2**20, failures=1)


RESULTS = {
    PRODUCT: {
        "traced": [burst(200, 50), burst(160, 20), burst(900, 900)],
        "untraced": [burst(150, 50)],
        "FastAPI constant": [burst(100)],
    },
    ORDER: {"traced": [burst(500)], "base abc1234": [burst(1000)]},
}


def measured() -> dict[str, float | None]:
    memory = {"traced": 90, "base abc1234": 100}
    return {goal.name: goal.measured for goal in goals(RESULTS, memory, ["traced", "untraced", "base abc1234"])}


def test_goals_are_ratios_of_medians() -> None:
    found = measured()
    assert found["untraced / FastAPI constant, 32 callers"] == 2.5
    assert found["(traced - untraced) / untraced, 32 callers"] == pytest.approx(0.2)
    assert found["CPU of the edge, traced, 32 callers: µs where the constant takes 75"] == 150
    assert found["order / base"] == 0.5
    assert found["PSS under `make up` / base"] == 0.9


def test_a_goal_without_its_variant_or_scenario_is_not_measured() -> None:
    found = measured()
    assert found["traced / aiohttp untraced, 32 callers"] is None
    assert found["page of 100 / base, 8 callers"] is None
    marks = {row[0]: row[-1] for row in goal_rows(goals(RESULTS, {}, []))}
    assert marks["order / base"] == "not measured"
    assert marks["untraced / FastAPI constant, 32 callers"] == "aim met"


def test_a_table_has_the_spread_and_the_failures_of_each_variant() -> None:
    head, traced, *_ = text(HEAD, rows(RESULTS[PRODUCT])).splitlines()
    assert len(head) == len(traced)
    assert traced.split() == ["traced", "300", "200", "to", "2700", "200", "50", "50", "100", "1.0", "1.0", "1", "3"]


def test_several_edges_share_all_callers() -> None:
    assert [shares(number, 2) for number in (1, 8, 33)] == [[1, 0], [4, 4], [17, 16]]


async def test_a_relay_passes_both_directions_on_and_counts_connections() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(200_000))
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with relay(f"127.0.0.1:{port}", delay=0.001) as network:
            host, _, own = network.address.rpartition(":")
            for _ in range(2):
                reader, writer = await asyncio.open_connection(host, int(own))
                writer.write(b"x" * 200_000)
                assert await reader.read() == b"x" * 200_000
                writer.close()
    assert network.connections == 2


def test_results_replace_the_ones_before_in_both_documents(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/performance.md"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    reached = list(goals(RESULTS, {}, []))
    for variants in (RESULTS, {PRODUCT: RESULTS[PRODUCT]}):
        svg = picture("product", RESULTS[PRODUCT])
        documents.write(tmp_path, "commit abc1234", variants, reached, memory={"traced": 2**20}, svg=svg)
    page = (tmp_path / "docs/performance.md").read_text()
    assert (
        page.count(markdown(HEAD, rows(RESULTS[PRODUCT]))) == page.count(markdown(GOAL_HEAD, goal_rows(reached))) == 1
    )
    assert "### Order" not in page
    assert (tmp_path / "README.md").read_text().count("(docs/images/product-read.svg)") == 1
    assert (tmp_path / "docs/images/product-read.svg").read_text().startswith("<svg ")
