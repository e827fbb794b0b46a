"""Killed, removed or disconnected parts of the mesh fail no request that could have succeeded."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from localmesh.kind.programs import NAMESPACE
from tests.cluster.cluster_mesh import Pod, in_thread, named, node_port, pods, processes, rolled_out
from tests.cluster.load import FRESH, KEPT, Load, until
from tests.e2e.local_mesh import Answer, call, order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cluster.cluster_mesh import ClusterMesh

PRODUCT = "/v1/products/TEA-0001"
BACK_SECONDS = 10.0
"""Seconds from when the backends are Ready until the first successful response."""

AWAY_SECONDS = 60
BACKENDS_AWAY_SECONDS = 30
"""After this time gRPC's backoff is 17 s ± 20 %: https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md."""

GO_ON = 1000
"""One read in this number may be late, while a connection is replaced without DNS."""

BACKENDS = ("inventory", "pricing")
REQUESTS = 100


class Workload(NamedTuple):
    """A Deployment."""

    name: str
    namespace: str = NAMESPACE


async def has_price(mesh: ClusterMesh) -> bool:
    """Whether the response for a product has its price."""
    return (await call(mesh, "GET", f"{PRODUCT}?strict=true")).status == 200


async def wait_until_replaced(*victims: Pod) -> None:
    """Waits until pods are deleted and their workloads are complete without them."""
    names = [f"pod/{victim.name}" for victim in victims]
    await in_thread("delete", *names, "--ignore-not-found", "--wait=false")
    await in_thread("wait", "--for=delete", *names, "--timeout=90s")
    await rolled_out(*(f"deployment/{victim.app}" for victim in victims))


@pytest.mark.timeout(180)
async def test_a_pod_of_each_backend_deleted_by_force_fails_no_read(mesh: ClusterMesh) -> None:
    load = Load(mesh, reads_only=True)
    async with load.running():
        await load.until(REQUESTS)
        victims = [pods(backend)[0].name for backend in BACKENDS]
        await in_thread("delete", "pod", *victims, "--force", "--grace-period=0")
        await rolled_out(*(f"deployment/{backend}" for backend in BACKENDS))
        await load.until(len(load.answers) + REQUESTS)
    assert (load.failures, load.refused) == ([], 0)


@pytest.mark.kills
@pytest.mark.timeout(180)
async def test_a_process_of_each_backend_killed_from_the_node_fails_no_read(mesh: ClusterMesh) -> None:
    load, victims = Load(mesh, reads_only=True), [pods(backend)[0] for backend in BACKENDS]
    async with load.running():
        await load.until(REQUESTS)
        for victim in victims:
            processes(victim)[0].signal("KILL")
        await load.until(len(load.answers) + REQUESTS)
        await wait_until_replaced(*victims)
    assert (load.failures, load.refused) == ([], 0)


@pytest.mark.kills
@pytest.mark.timeout(180)
async def test_an_edge_process_killed_from_the_node_fails_only_its_requests_in_flight(mesh: ClusterMesh) -> None:
    """Until the node notices its death, new connections may be refused; nothing is sent on them."""
    load, victim = Load(mesh, at=node_port("api-edge")), pods("api-edge")[0]
    async with load.running():
        await load.until(REQUESTS)
        processes(victim)[0].signal("KILL")
        await load.until(len(load.answers) + REQUESTS)
        await wait_until_replaced(victim)
    assert len(load.failures) <= KEPT + FRESH, load.failures
    assert all("Disconnected" in failure or "reset" in failure for failure in load.failures)


@asynccontextmanager
async def shoppers(mesh: ClusterMesh, count: int) -> AsyncIterator[dict[str, list[Answer]]]:
    """Clients that place one order after another, and repeat each until it succeeds; returns all responses by key."""
    responses: dict[str, list[Answer]] = {}
    stop = asyncio.Event()

    async def shop() -> None:
        while not stop.is_set():
            key = str(uuid.uuid4())
            responses[key] = []
            while not responses[key] or responses[key][-1].status in {503, 504}:
                responses[key].append(await order(mesh, key, {"ACC-0001": 1}))
            assert responses[key][-1].status == 201, responses[key][-1].body

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(shop())
        try:
            yield responses
        finally:
            stop.set()


async def read(mesh: ClusterMesh, answers: list[Answer]) -> None:
    """Reads one product repeatedly."""
    while True:
        answers.append(await call(mesh, "GET", PRODUCT))


@pytest.mark.timeout(240)
async def test_orders_survive_the_loss_of_the_database_pod(mesh: ClusterMesh) -> None:
    before = (await call(mesh, "GET", "/v1/products/ACC-0001")).body["stock"]
    reads: list[Answer] = []
    async with shoppers(mesh, 4) as responses:
        while sum(map(len, responses.values())) < 40:
            await asyncio.sleep(0.1)
        reading = asyncio.create_task(read(mesh, reads))
        await in_thread("delete", "pod", "postgres-0")
        await rolled_out("statefulset/postgres", *(f"deployment/{name}" for name in BACKENDS))
        await until(lambda: has_price(mesh), BACK_SECONDS)
        reading.cancel()
    assert {answer.status for answer in reads} <= {200, 503}, [answer.body for answer in reads]
    assert all(answer.headers["Content-Type"] == "application/problem+json" for answer in reads if answer.status > 200)
    orders = {key: answers[-1].body for key, answers in responses.items()}
    assert len({placed["id"] for placed in orders.values()}) == len(orders)
    for key, placed in orders.items():
        assert (await order(mesh, key, {"ACC-0001": 1})).body == placed
    after = (await call(mesh, "GET", "/v1/products/ACC-0001")).body["stock"]
    assert after["reserved"] - before["reserved"] == len(orders)
    assert after["available"] == after["on_hand"] - after["reserved"] >= 0
    for placed in orders.values():
        assert (await call(mesh, "DELETE", f"/v1/orders/{placed['id']}")).status == 200


@asynccontextmanager
async def without_pods(*workloads: Workload) -> AsyncIterator[None]:
    """Removes all pods of some Deployments while the block runs."""
    async with AsyncExitStack() as stack:
        for workload in workloads:
            stack.push_async_callback(scale, workload, await replicas(workload))
            await scale(workload, 0)
        yield


async def replicas(workload: Workload) -> int:
    """How many pods a Deployment should have."""
    found = await in_thread("get", f"deployment/{workload.name}", "--output=json", namespace=workload.namespace)
    return int(json.loads(found)["spec"]["replicas"])


async def scale(workload: Workload, pods: int) -> None:
    """Scales a Deployment and waits until it is complete."""
    name, namespace = f"deployment/{workload.name}", workload.namespace
    await in_thread("scale", name, f"--replicas={pods}", namespace=namespace)
    await in_thread("rollout", "status", name, "--timeout=120s", namespace=namespace)


@pytest.mark.timeout(240)
async def test_reads_continue_without_jaeger_and_dns_for_a_minute(mesh: ClusterMesh) -> None:
    load = Load(mesh, reads_only=True)
    async with load.running():
        await load.until(REQUESTS)
        async with without_pods(Workload("jaeger"), Workload("coredns", "kube-system")):
            await asyncio.sleep(AWAY_SECONDS)
        await load.until(len(load.answers) + REQUESTS)
    assert len(load.failures) <= len(load.answers) / GO_ON, load.failures
    assert load.refused == 0


@pytest.mark.timeout(300)
async def test_backends_that_were_away_are_used_soon_after_they_are_ready(mesh: ClusterMesh) -> None:
    """Without pods their names have no address, and gRPC would query DNS less and less often."""
    answers = []
    async with without_pods(*map(Workload, BACKENDS)):
        gone = time.monotonic() + BACKENDS_AWAY_SECONDS
        while time.monotonic() < gone:
            answers.append(await call(mesh, "GET", PRODUCT))
            await asyncio.sleep(0.5)
    assert await until(lambda: has_price(mesh), BACK_SECONDS) < BACK_SECONDS
    assert {answer.status for answer in answers[-20:]} == {503}
    assert all(answer.body["reason"] == "UNAVAILABLE" for answer in answers[-20:])
    assert named("deployment", "inventory")["status"]["readyReplicas"] >= 1
