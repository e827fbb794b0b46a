"""Why a workload is not ready: its events, what its containers wait for, their last log lines."""

from collections.abc import Iterator, Sequence

from localmesh.kind.objects import ContainerStatus, Event, Named, Pod, Workload, listed, makers
from localmesh.kind.programs import CannotGoOn, kubectl
from localmesh.logs import readable

EVENTS = 4  # of each object, the last ones
LOG_LINES = 6


def explain(workloads: Sequence[Workload]) -> list[str]:
    """Lines about each of these workloads, its newest ReplicaSet and the pods of that which are not ready."""
    pods, replica_sets = listed(Pod, "pods"), listed(Named, "replicasets")
    events = listed(Event, "events", "--sort-by=.metadata.creationTimestamp")
    lines = []
    for workload in workloads:
        names = makers(workload, replica_sets)
        unready = [pod for pod in pods if pod.metadata.owners & set(names) and not pod.status.is_ready]
        lines += [f"{workload.kind} {workload.metadata.name}", *_conditions(workload)]
        lines += happened([*names, *(pod.metadata.name for pod in unready)], events)
        lines += [line for pod in unready for line in _pod(pod)]
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
        text = kubectl("logs", pod, f"--container={container}", f"--tail={LOG_LINES}", *which)
    except CannotGoOn:  # a container that never ran has no log
        return
    if lines := [part for line in text.splitlines() for part in readable(line)]:
        yield f"  log of {pod} {container}" + (", the one before" if which else "")
        yield from (f"    {line}" for line in lines)
