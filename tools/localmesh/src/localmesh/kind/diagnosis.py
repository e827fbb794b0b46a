"""Why a workload is not ready: its events, what its containers wait for, their last log lines."""

from collections.abc import Iterator, Sequence

from localmesh.kind.objects import NAMESPACE, ContainerStatus, Event, Named, Pod, Workload, listed
from localmesh.kind.programs import CannotGoOn, kubectl
from localmesh.logs import readable

EVENTS = 5  # of each object, the last ones
LOG_LINES = 6


def belongs(pod: Pod, workload: Workload) -> bool:
    """Whether the labels of a pod are those that the workload selects."""
    return workload.spec.selector.match_labels.items() <= pod.metadata.labels.items()


def explain(workloads: Sequence[Workload]) -> list[str]:
    """Lines about each of these workloads, its ReplicaSets and its pods."""
    pods, replica_sets, events = listed(Pod, "pods"), listed(Named, "replicasets"), listed(Event, "events")
    lines = []
    for workload in workloads:
        name = workload.metadata.name
        owned = [one for one in replica_sets if name in {owner.name for owner in one.metadata.owner_references}]
        own_pods = [pod for pod in pods if belongs(pod, workload)]
        lines += [f"{workload.kind} {name}", *_conditions(workload)]
        lines += happened([name, *(one.metadata.name for one in [*owned, *own_pods])], events)
        lines += [line for pod in own_pods for line in _pod(pod)]
    return lines


def happened(names: Sequence[str], events: Sequence[Event]) -> list[str]:
    """The last events of the objects of these names; `events` in the order in which they happened."""
    lines = []
    for name in names:
        of_object = [event for event in events if event.involved_object.name == name][-EVENTS:]
        lines += [f"  {one.involved_object.kind} {name}: {one.reason}: {one.message}" for one in of_object]
    return lines


def _conditions(workload: Workload) -> Iterator[str]:
    for one in workload.status.conditions:
        if (one.type == "ReplicaFailure") == (one.status == "True"):
            yield f"  {one.reason}: {one.message}"


def _pod(pod: Pod) -> Iterator[str]:
    for container in pod.status.containers:
        if not container.ready:
            yield from _container(pod.metadata.name, container)


def _container(pod: str, container: ContainerStatus) -> Iterator[str]:
    if container.state.waiting:
        yield f"  {pod} {container.name} waits: {container.state.waiting.reason}: {container.state.waiting.message}"
    yield from _log(pod, container.name)
    if container.restart_count:
        yield from _log(pod, container.name, "--previous")


def _log(pod: str, container: str, *which: str) -> Iterator[str]:
    try:
        text = kubectl(
            "logs", pod, f"--namespace={NAMESPACE}", f"--container={container}", f"--tail={LOG_LINES}", *which
        )
    except CannotGoOn:  # a container that never ran has no log
        return
    if lines := [part for line in text.splitlines() for part in readable(line)]:
        yield f"  log of {pod} {container}" + (", the one before" if which else "")
        yield from (f"    {line}" for line in lines)
