"""The load of `make bench`: bursts of wrk, which varies SKUs, quantities and idempotency keys."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.variants import Running

SCRIPT = Path(__file__).with_name("load.lua")
SETTLE_SECONDS = 0.7
"""From the end of a burst to the second reading of the CPU clocks, so that the last export counts."""


@dataclass(frozen=True)
class Scenario:
    """What is asked: `product`, `page` (of `size` products) or `order`, by so many concurrent callers."""

    kind: str
    callers: int
    size: int = 1

    @property
    def name(self) -> str:
        """As the table shows it."""
        what = f"page of {self.size}" if self.kind == "page" else self.kind
        return f"{what}, {self.callers} callers" if self.callers > 1 else f"{what}, one caller"


@dataclass(frozen=True)
class Burst:
    """One burst: CPU in µs per request by role, requests per second, latencies in ms, resident bytes."""

    cpu: Mapping[str, float]
    rate: float
    p50: float
    p99: float
    memory: int
    failures: int

    @property
    def total(self) -> float:
        """The CPU of all processes."""
        return sum(self.cpu.values())


def burst(running: Running, scenario: Scenario, seconds: int, skus: Sequence[str]) -> Burst:
    """Loads a variant for some seconds with requests for some SKUs. Several edges share the callers.

    Their latencies are then the mean of the medians, and the worst of the 99th percentiles.
    """
    before = running.cpu_seconds()
    results = _wrk(running.urls, scenario, seconds, skus)
    time.sleep(SETTLE_SECONDS)
    requests = max(sum(each["requests"] for each in results), 1)
    return Burst(
        {role: (after - before[role]) / requests * 1e6 for role, after in running.cpu_seconds().items()},
        rate=sum(each["requests"] / each["seconds"] for each in results),
        p50=mean(each["p50"] for each in results) / 1000,
        p99=max(each["p99"] for each in results) / 1000,
        memory=running.memory(),
        failures=int(sum(each["failures"] for each in results)),
    )


def _wrk(urls: Sequence[str], scenario: Scenario, seconds: int, skus: Sequence[str]) -> list[dict[str, float]]:
    """The summaries that the script prints, of one wrk for each URL."""
    started = [
        subprocess.Popen(_command(url, callers, scenario, seconds, skus), stdout=subprocess.PIPE, text=True)
        for url, callers in zip(urls, shares(scenario.callers, len(urls)), strict=True)
        if callers
    ]
    printed = [process.communicate()[0] for process in started]
    if failed := [process.args for process in started if process.returncode]:
        raise RuntimeError(f"wrk failed: {failed}")
    return [dict(json.loads(text[text.index("{") :])) for text in printed]


def shares(number: int, parts: int) -> list[int]:
    """A number in as many parts, which are as equal as possible."""
    return [number // parts + (part < number % parts) for part in range(parts)]


def _command(url: str, callers: int, scenario: Scenario, seconds: int, skus: Sequence[str]) -> list[str]:
    arguments = [scenario.kind, str(scenario.size), secrets.token_hex(8), ",".join(skus)]
    return ["wrk", "-t1", f"-c{callers}", f"-d{seconds}s", "-s", str(SCRIPT), url, "--", *arguments]
