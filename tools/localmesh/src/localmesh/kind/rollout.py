"""Waits until every workload runs what was applied, telling of each step."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from localmesh.console import Console
from localmesh.kind.diagnosis import explain
from localmesh.kind.objects import Autoscaler, Named, Pod, Workload, listed, makers
from localmesh.kind.programs import CannotGoOn

LIMIT = 300.0  # seconds for all, with images to pull
INTERVAL = 1.0  # seconds between two looks
STUCK = {
    "FailedCreate",
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
}
STUCK_LIMIT = 20.0  # seconds from the first time in such a state until one that is in it again is given up


@dataclass
class Progress:
    """What is known of one workload while it is waited for."""

    text: str = ""
    ready_after: float | None = None
    """Seconds."""
    stuck_since: float | None = None
    is_hopeless: bool = False


@dataclass
class Rollout:
    """The rollout of all workloads, from now on."""

    console: Console
    begun: float = field(default_factory=time.monotonic)
    progress: dict[str, Progress] = field(default_factory=dict)

    @property
    def ready_after(self) -> dict[str, float]:
        """Seconds until a workload was ready, by its name, for those that are."""
        return {name: one.ready_after for name, one in self.progress.items() if one.ready_after is not None}

    def wait(self) -> Sequence[Workload]:
        """Returns the workloads when all are ready.

        Raises:
            CannotGoOn: they take too long, or a container cannot start; the details say why.
        """
        while True:
            workloads = self._look()
            unready = [one for one in workloads if one.metadata.name not in self.ready_after]
            if workloads and not unready:
                return workloads
            hopeless = any(self.progress[one.metadata.name].is_hopeless for one in unready)
            if hopeless or time.monotonic() - self.begun > LIMIT:
                names = ", ".join(one.metadata.name for one in unready)
                raise CannotGoOn(f"not ready, and waited for no longer: {names}", explain(unready))
            time.sleep(INTERVAL)

    def _look(self) -> Sequence[Workload]:
        workloads = listed(Workload, "deployments,statefulsets")
        least = {one.spec.scale_target_ref.name: one.spec.min_replicas for one in listed(Autoscaler, "hpa")}
        pods, replica_sets = listed(Pod, "pods"), listed(Named, "replicasets")
        for workload in workloads:
            names = set(makers(workload, replica_sets))
            own = [pod for pod in pods if pod.metadata.owners & names]
            self._note(workload, least.get(workload.metadata.name, 1), own)
        return workloads

    def _note(self, workload: Workload, least: int, pods: Sequence[Pod]) -> None:
        now = time.monotonic() - self.begun
        progress = self.progress.setdefault(workload.metadata.name, Progress())
        reasons = waiting(workload, pods)
        text = " ".join([status(workload, least), *sorted(reasons)])
        if text != progress.text:
            self.console.say(f"{now:5.0f} s  {workload.metadata.name:<10} {text}")
        progress.text = text
        progress.ready_after = (progress.ready_after or now) if complete(workload, least) else None
        if reasons & STUCK:
            progress.stuck_since = progress.stuck_since or now
            progress.is_hopeless = now - progress.stuck_since > STUCK_LIMIT


def complete(workload: Workload, least: int) -> bool:
    """Whether only pods of the newest template are there, `least` or more, and all can serve."""
    spec, now = workload.spec, workload.status
    seen = now.observed_generation >= workload.metadata.generation
    return seen and max(spec.replicas, least) == now.replicas == now.updated_replicas == now.ready_replicas


def status(workload: Workload, least: int) -> str:
    """How far the rollout of a workload is, in words."""
    now, wanted = workload.status, max(workload.spec.replicas, least)
    if now.observed_generation < workload.metadata.generation:
        return "is not looked at yet"
    old = now.replicas - now.updated_replicas
    before = f"{now.updated_replicas} new pods, {old} of before, " if old else ""
    return f"{before}{now.ready_replicas}/{wanted} ready"


def waiting(workload: Workload, pods: Sequence[Pod]) -> set[str]:
    """Why the containers of these pods do not run, and why a workload has no pods, as Kubernetes names it."""
    if workload.status.observed_generation < workload.metadata.generation:
        return set()  # what is known is of the template before
    refusals = {
        one.reason for one in workload.status.conditions if (one.type, one.status) == ("ReplicaFailure", "True")
    }
    states = (container.state.waiting for pod in pods for container in pod.status.containers)
    return refusals | {state.reason for state in states if state}
