"""docs/operations.md agrees with the manifests and the metrics."""

from __future__ import annotations

import re

import yaml

from tests.contract.manifests import WORKLOADS
from tests.repository import ROOT

DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
TELEMETRY = (ROOT / "docs" / "telemetry.md").read_text()
MANIFESTS = ROOT / "deploy" / "k8s"

UNITS = {"s": "_seconds"}
"""The suffix that Prometheus appends to a name, by unit; units in braces have none."""


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without the header."""
    [section] = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def resources() -> dict[str, tuple[float, str, str]]:
    """The requested CPU (in cores), the requested memory and the memory limit of each workload.

    The backends share one component.
    """
    texts = [path.read_text() for folder in ("base", "components") for path in (MANIFESTS / folder).rglob("*.yaml")]
    found = [one for text in texts for one in yaml.safe_load_all(text) if one.get("kind") in WORKLOADS]
    containers = [
        (one["metadata"]["name"], one["spec"]["template"]["spec"].get("containers", [{}])[0]) for one in found
    ]
    figures = {name: _figures(one["resources"]) for name, one in containers if "resources" in one}
    return {"backend": figures.pop("any")} | figures


def _figures(one: dict[str, dict[str, str]]) -> tuple[float, str, str]:
    requests, limits = one["requests"], one["limits"]
    return int(requests["cpu"].removesuffix("m")) / 1000, requests["memory"], limits["memory"]


def test_the_table_of_resources_matches_the_manifests() -> None:
    *workloads, total = rows("What it takes")
    documented = {
        name: (float(cpu), memory.replace(" MiB", "Mi"), limit.replace(" MiB", "Mi"))
        for names, _, cpu, _, memory, limit in workloads
        for name in re.findall("`([a-z-]+)`", names)
    }
    assert documented == resources()
    pods = {"api-edge": 2, "backend": 2 * 2}
    mesh = {name: cpu for name, (cpu, _, _) in documented.items() if not name.startswith("gateway-")}
    assert float(total[2]) == sum(cpu * pods.get(name, 1) for name, cpu in mesh.items())


def test_the_metrics_to_watch_exist() -> None:
    there = re.findall(r"^\| `([a-z._]+)` \|[^|]+\|[^|]+\| `([^`]+)` \|", TELEMETRY, re.MULTILINE)
    names = {metric.replace(".", "_") + UNITS.get(unit, "") for metric, unit in there}
    watched = {name for row in rows("What to watch") for name in re.findall(r"`((?:http|rpc|db|meshkit)_\w+)`", row[0])}
    attributes = {name.replace(".", "_") for name in re.findall(r"`([a-z]+(?:[._][a-z_]+)+)`", TELEMETRY)}
    assert len(watched & names) >= 6
    assert watched <= names | attributes
