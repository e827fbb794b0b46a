"""Rollouts and scaling fail no request and lose no span."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster_mesh import in_thread, named, pods, rolled_out
from tests.cluster.load import Audit, Load, until

if TYPE_CHECKING:
    from collections import Counter

    from tests.cluster.cluster_mesh import ClusterMesh

REQUESTS = 10_000
LEAST, MOST = 2, 4
"""The bounds of the autoscalers."""

SETTLED_SECONDS = 60
"""Seconds from when new pods are Ready until they must get their share of the calls."""

COUNTED_SECONDS, COUNTED = 10, 100
"""Seconds in which the calls of each pod are counted, and how many all pods must get in them."""


@pytest.mark.timeout(600)
async def test_restarting_every_deployment_under_load_fails_nothing_and_loses_no_span(mesh: ClusterMesh) -> None:
    load = Load(mesh, interval=0.07)
    audit = Audit(load)
    async with audit.running(), load.running():
        for service in ("api-edge", "inventory", "pricing"):
            await load.until(len(load.answers) + REQUESTS // 40)
            await in_thread("rollout", "restart", f"deployment/{service}")
            await rolled_out(f"deployment/{service}")
        await load.until(REQUESTS)
    assert (load.failures, load.refused) == ([], 0)
    assert audit.missing == []
    assert audit.complete == len(load.answers) >= REQUESTS
    assert any(answered.closing and answered.kept for answered in load.answers), (
        "no draining edge sent Connection: close"
    )


async def set_bounds(service: str, least: int, most: int) -> None:
    """Sets the bounds of an autoscaler and waits until the Deployment has a number of replicas within them."""
    patch = json.dumps({"spec": {"minReplicas": least, "maxReplicas": most}})
    await in_thread("patch", "hpa", service, f"--patch={patch}")

    async def within() -> bool:
        deployment = await asyncio.to_thread(named, "deployment", service)
        return least <= int(deployment["spec"]["replicas"]) <= most

    await until(within, 60)
    await rolled_out(f"deployment/{service}")


@pytest.mark.timeout(420)
async def test_scaling_inventory_under_load_fails_nothing_and_distributes_the_calls(mesh: ClusterMesh) -> None:
    old = {pod.name for pod in pods("inventory")}
    load = Load(mesh)
    audit = Audit(load)
    try:
        async with audit.running(), load.running():
            await set_bounds("inventory", MOST, MOST)
            new = {pod.name for pod in pods("inventory")} - old
            await get_a_fair_share(audit, new)
            await set_bounds("inventory", LEAST, LEAST)
            await load.until(len(load.answers) + 200)
    finally:
        await set_bounds("inventory", LEAST, MOST)
    assert (load.failures, load.refused, audit.missing) == ([], 0, [])
    assert len(new) == MOST - LEAST


async def get_a_fair_share(audit: Audit, names: set[str]) -> None:
    """Waits until each of these pods got at least half of its share of the last calls."""

    def calls() -> Counter[str]:
        now = time.monotonic()
        return audit.by_pod("inventory", now - COUNTED_SECONDS, now)

    async def fair() -> bool:
        served = calls()
        return served.total() >= COUNTED and all(served[name] >= served.total() / MOST / 2 for name in names)

    try:
        await until(fair, SETTLED_SECONDS + COUNTED_SECONDS)
    except TimeoutError:
        pytest.fail(f"the new pods {names} did not get their share of the last calls: {calls()}")
