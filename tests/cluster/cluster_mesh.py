"""The mesh on a cluster: tests call it through its node ports, and inspect and disturb it with kubectl.

Operations on the node itself (signals to processes, their effective privileges) use `docker exec`, because the
nodes of kind are containers.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localmesh.kind.programs import NAMESPACE
from localmesh.services import read_services

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Json = Any

SERVICES = tuple(service.workload for service in read_services())
FOREIGN = ("pause", "runc")  # the container that holds a pod's network; what prepares a process of a container


class KubectlFailed(Exception):
    """kubectl exited with an error; the text is its output."""


def kubectl(*arguments: str, given: str | None = None, namespace: str = NAMESPACE) -> str:
    """The output of kubectl. Raises KubectlFailed."""
    command = ["kubectl", f"--namespace={namespace}", *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KubectlFailed(done.stderr.strip())
    return done.stdout


def objects(resource: str, *options: str, namespace: str = NAMESPACE) -> list[Json]:
    """The objects of a resource, as the API server returns them."""
    items: list[Json] = json.loads(kubectl("get", resource, "--output=json", *options, namespace=namespace))["items"]
    return items


def named(resource: str, name: str) -> Json:
    """One object."""
    return json.loads(kubectl("get", resource, name, "--output=json"))


async def in_thread(*arguments: str, namespace: str = NAMESPACE) -> str:
    """`kubectl` without blocking the event loop."""
    return await asyncio.to_thread(kubectl, *arguments, namespace=namespace)


@dataclass(frozen=True)
class Pod:
    """A pod that is not being deleted, and its workload."""

    name: str
    app: str
    uid: str
    node: str
    ready: bool
    restarts: int
    containers: tuple[str, ...]


def pods(*apps: str) -> list[Pod]:
    """The pods of these workloads, without those being deleted."""
    found = objects("pods", f"--selector=app.kubernetes.io/name in ({','.join(apps)})")
    return [_pod(one) for one in found if "deletionTimestamp" not in one["metadata"]]


def _pod(one: Json) -> Pod:
    statuses = one["status"].get("containerStatuses", [])
    return Pod(
        name=one["metadata"]["name"],
        app=one["metadata"]["labels"]["app.kubernetes.io/name"],
        uid=one["metadata"]["uid"],
        node=one["spec"].get("nodeName", ""),
        ready=bool(statuses) and all(status["ready"] for status in statuses),
        restarts=sum(status["restartCount"] for status in statuses),
        containers=tuple(container["name"] for container in one["spec"]["containers"]),
    )


def restarts() -> dict[str, int]:
    """The number of container restarts of each pod of the mesh."""
    return {pod.name: pod.restarts for pod in pods(*SERVICES)}


@dataclass(frozen=True)
class Process:
    """A process of a pod, by its pid on the node."""

    node: str
    pid: int

    def signal(self, name: str) -> None:
        """Sends it a signal, such as KILL, from outside its container."""
        _on_node(self.node, f"kill -{name} {self.pid}")

    def read(self, file: str) -> str:
        """One of its files in /proc; empty once it has ended."""
        return _on_node(self.node, f"cat /proc/{self.pid}/{file} || test ! -d /proc/{self.pid}")


def processes(pod: Pod) -> list[Process]:
    """The processes of a pod's containers, oldest first; probes that run a command start short ones.

    Cgroup names contain the pod's uid, with - or with _.
    """
    script = (
        f"for file in $(grep -lE '{pod.uid.replace('-', '[-_]')}' /proc/[0-9]*/cgroup 2>/dev/null); do"
        " pid=${file#/proc/}; pid=${pid%/cgroup}; name=$(cat /proc/$pid/comm) || continue; echo $pid $name; done"
    )
    lines = [line.split() for line in _on_node(pod.node, script).splitlines()]
    return [Process(pod.node, int(line[0])) for line in sorted(lines, key=_pid) if not line[1].startswith(FOREIGN)]


def _pid(line: Sequence[str]) -> int:
    return int(line[0])


def _on_node(node: str, script: str) -> str:
    done = subprocess.run(["docker", "exec", node, "sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout


@dataclass(frozen=True)
class ClusterMesh:
    """The mesh behind the node ports, which kind maps to this machine."""

    edge: str = f"http://127.0.0.1:{os.environ.get('EDGE_PORT') or 8080}"
    grpc: str = f"127.0.0.1:{os.environ.get('EDGE_GRPC_PORT') or 50050}"
    traces: str = f"http://localhost:{os.environ.get('TRACES_PORT') or 16686}"
    database: str = "postgresql"

    @contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """Stops every process of a service with SIGSTOP while the block runs."""
        stopped = [process for pod in pods(service) for process in processes(pod)]
        for process in stopped:
            process.signal("STOP")
        try:
            yield
        finally:
            for process in stopped:
                process.signal("CONT")


def node_port(service: str) -> str:
    """The URL of a service's node port on the node itself: Docker's proxy accepts connections even for a dead pod."""
    [address] = [one["address"] for one in objects("nodes")[0]["status"]["addresses"] if one["type"] == "InternalIP"]
    return f"http://{address}:{named('service', service)['spec']['ports'][0]['nodePort']}"


async def rolled_out(*workloads: str, seconds: int = 120) -> None:
    """Waits until each workload, such as deployment/inventory, has all its replicas of the newest template."""
    for workload in workloads:
        await in_thread("rollout", "status", workload, f"--timeout={seconds}s")
