"""Autoscaling and disruption: there are as many pods as the load needs, and always at least one."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from localmesh.kind.programs import NAMESPACE
from tests.cluster.cluster_mesh import SERVICES, KubectlFailed, in_thread, kubectl, named, pods, rolled_out
from tests.cluster.load import Load, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cluster.cluster_mesh import ClusterMesh

METRICS_SERVER = os.environ.get("AIOMESH_METRICS_SERVER")
"""The argument of `kubectl apply -k` that installs metrics-server, if the cluster has none."""

PAGE = "/v1/products?page_size=100"
"""An expensive request, because the edge serializes all its products."""


def has_metrics() -> bool:
    """Whether the cluster reports the CPU usage of the mesh's pods."""
    try:
        kubectl("get", "--raw", f"/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods")
    except KubectlFailed:
        return False
    return True


@asynccontextmanager
async def metrics() -> AsyncIterator[None]:
    """Installs metrics-server while the block runs, unless the cluster has it."""
    if has_metrics():
        yield
        return
    await in_thread("apply", f"--kustomize={METRICS_SERVER}", namespace="kube-system")
    try:
        yield
    finally:
        await in_thread("delete", f"--kustomize={METRICS_SERVER}", namespace="kube-system")


async def replicas(service: str) -> int:
    """The number of replicas that the autoscaler wants."""
    return int((await asyncio.to_thread(named, "deployment", service))["spec"]["replicas"])


@pytest.mark.skipif(has_metrics(), reason="the cluster has metrics-server")
def test_autoscalers_keep_their_minimum_without_metrics() -> None:
    for service in SERVICES:
        autoscaler, deployment = named("hpa", service), named("deployment", service)
        assert not scales(service)
        assert deployment["spec"]["replicas"] == autoscaler["spec"]["minReplicas"]
        assert deployment["status"]["readyReplicas"] == deployment["spec"]["replicas"]


@pytest.mark.skipif(not (METRICS_SERVER or has_metrics()), reason="needs metrics-server: set AIOMESH_METRICS_SERVER")
@pytest.mark.timeout(420)
async def test_the_autoscaler_adds_pods_under_load_and_no_request_fails(mesh: ClusterMesh) -> None:
    load = Load(mesh, reads_only=True, read=PAGE, interval=0)
    async with metrics(), load.running():

        async def more() -> bool:
            return await replicas("api-edge") > int(named("hpa", "api-edge")["spec"]["minReplicas"])

        await until(more, 240)
        await rolled_out("deployment/api-edge")
    assert (load.failures, load.refused) == ([], 0)
    if not has_metrics():
        await asyncio.gather(*(back_to_minimum(service) for service in SERVICES))


async def back_to_minimum(service: str) -> None:
    """Scales to the minimum, because without metrics the autoscaler only enforces its bounds."""
    bounds = named("hpa", service)["spec"]
    await set_maximum(service, bounds["minReplicas"])

    async def settled() -> bool:
        return not await asyncio.to_thread(scales, service) and await replicas(service) == bounds["minReplicas"]

    await until(settled, 90)
    await set_maximum(service, bounds["maxReplicas"])
    await rolled_out(f"deployment/{service}")


async def set_maximum(service: str, most: int) -> None:
    """Sets the autoscaler's maximum of replicas."""
    await in_thread("patch", "hpa", service, f"--patch={json.dumps({'spec': {'maxReplicas': most}})}")


def scales(service: str) -> bool:
    """Whether the autoscaler follows a metric."""
    conditions = named("hpa", service)["status"]["conditions"]
    return {one["type"]: one["status"] for one in conditions}.get("ScalingActive") == "True"


def evict(pod: str) -> None:
    """Requests the eviction of a pod, as a node drain does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))


@pytest.mark.timeout(180)
async def test_evictions_that_would_leave_too_few_pods_are_rejected() -> None:
    evicted, kept = zip(*[pods(service)[:2] for service in SERVICES], strict=True)
    for pod in evicted:
        evict(pod.name)
    for pod in kept:
        with pytest.raises(KubectlFailed, match="would violate the pod's disruption budget"):
            evict(pod.name)
    await in_thread("wait", "--for=delete", *(f"pod/{pod.name}" for pod in evicted), "--timeout=60s")
    await rolled_out(*(f"deployment/{service}" for service in SERVICES))
    assert {pod.name for pod in kept} <= {pod.name for pod in pods(*SERVICES)}
