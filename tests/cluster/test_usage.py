"""The resources that the whole mesh uses, after the load of the other tests."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

from localmesh.kind.programs import NAMESPACE
from tests.cluster.cluster_mesh import kubectl, objects

if TYPE_CHECKING:
    import pytest

GIB = 2**30
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def working_sets() -> dict[str, int]:
    """The working set of each pod in bytes, from the kubelets."""
    found = {}
    for node in objects("nodes"):
        summary = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"))
        for pod in summary["pods"]:
            if pod["podRef"]["namespace"] == NAMESPACE:
                found[pod["podRef"]["name"]] = sum(one["memory"]["workingSetBytes"] for one in pod["containers"])
    return found


def cores(quantity: str) -> float:
    """A quantity of CPU in cores: `100m`, `1`."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def size(quantity: str) -> float:
    """A quantity of memory in bytes: `96Mi`."""
    [(number, unit)] = re.findall(r"^(\d+)(Ki|Mi|Gi)$", quantity)
    return float(number) * UNITS[unit]


def test_the_mesh_fits_into_one_core_and_one_gibibyte(capsys: pytest.CaptureFixture[str]) -> None:
    used = working_sets()
    rows = []
    for pod in objects("pods"):
        [container] = pod["spec"]["containers"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        name = pod["metadata"]["name"]
        rows.append((name, cores(requests["cpu"]), used[name], size(requests["memory"]), size(limits["memory"])))
    cpu, memory = sum(row[1] for row in rows), sum(row[2] for row in rows)
    table = [f"{'pod':40} {'CPU request':>12} {'working set':>12} {'request':>9} {'limit':>9}"]
    for name, core, working, request, limit in sorted(rows):
        table.append(f"{name:40} {core:12.2f} {mib(working):>12} {mib(request):>9} {mib(limit):>9}")
    table.append(f"{'all':40} {cpu:12.2f} {mib(memory):>12}")
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(table) + "\n")
    assert memory < GIB
    assert cpu <= 1


def mib(size: float) -> str:
    """A size as readable text."""
    return f"{size / 2**20:.0f} MiB"
