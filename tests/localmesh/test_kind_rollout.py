"""When a workload counts as ready, and what is told of one that is not."""

import pytest

from localmesh.kind.diagnosis import happened
from localmesh.kind.objects import Event, Named, Pod, Workload, makers
from localmesh.kind.rollout import complete, status, waiting

REVISION = "deployment.kubernetes.io/revision"


def workload(**status: object) -> Workload:
    return Workload.model_validate(
        {
            "kind": "Deployment",
            "metadata": {"name": "pricing", "generation": 2, "annotations": {REVISION: "2"}},
            "spec": {"replicas": 1},
            "status": {"observedGeneration": 2, **status},
        }
    )


def pods_of(replicas: int, updated: int, ready: int) -> dict[str, object]:
    return {"replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready}


def pod(*states: dict[str, object]) -> Pod:
    containers = [{"name": "server", "ready": False, "restartCount": 0, "state": state} for state in states]
    return Pod.model_validate({"metadata": {"name": "pod"}, "status": {"containerStatuses": containers}})


def replica_set(name: str, owner: str, revision: str) -> Named:
    metadata = {"name": name, "annotations": {REVISION: revision}, "ownerReferences": [{"name": owner}]}
    return Named.model_validate({"metadata": metadata})


def event(target: str, message: str) -> Event:
    involved = {"kind": "Pod", "name": target}
    return Event.model_validate(
        {
            "metadata": {"name": "e"},
            "type": "Warning",
            "reason": "Failed",
            "message": message,
            "involvedObject": involved,
        }
    )


def test_a_workload_is_complete_when_only_new_pods_are_there_and_all_serve() -> None:
    assert complete(workload(**pods_of(2, 2, 2)), least=2)


@pytest.mark.parametrize(
    "state",
    [
        {},
        pods_of(1, 1, 1),  # the autoscaler will ask for a second one
        pods_of(3, 2, 2),
        pods_of(2, 1, 2),
        pods_of(2, 2, 1),
        {**pods_of(2, 2, 2), "observedGeneration": 1},
    ],
)
def test_a_workload_is_not_complete_before(state: dict[str, object]) -> None:
    assert not complete(workload(**state), least=2)


def test_the_status_tells_of_pods_of_before() -> None:
    assert status(workload(**pods_of(3, 1, 2)), least=2) == "1 new pods, 2 of before, 2/2 ready"
    assert status(workload(**pods_of(2, 2, 1)), least=2) == "1/2 ready"
    assert status(workload(observedGeneration=1), least=2) == "is not looked at yet"


def test_the_newest_replica_set_of_a_deployment_makes_its_pods() -> None:
    sets = [replica_set("old", "pricing", "1"), replica_set("new", "pricing", "2"), replica_set("x", "inventory", "2")]
    assert makers(workload(), sets) == ["pricing", "new"]


def test_reasons_of_waiting_are_those_of_containers_and_of_refused_pods() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    pods = [pod({"waiting": {"reason": "ImagePullBackOff"}}, {"running": {}})]
    assert waiting(workload(conditions=[refused]), pods) == {"FailedCreate", "ImagePullBackOff"}


def test_pods_of_a_template_that_was_just_replaced_give_no_reason() -> None:
    assert not waiting(workload(observedGeneration=1), [pod({"waiting": {"reason": "CrashLoopBackOff"}})])


def test_a_pod_is_ready_when_all_its_containers_are_and_there_are_some() -> None:
    served = {"name": "server", "ready": True, "restartCount": 0, "state": {}}
    assert Pod.model_validate({"metadata": {"name": "p"}, "status": {"containerStatuses": [served]}}).status.is_ready
    assert not pod({"running": {}}).status.is_ready
    assert not pod().status.is_ready


def test_the_last_events_of_each_object_are_shown_in_their_order() -> None:
    events = [event("a", "first"), event("other", "no"), *(event("a", str(number)) for number in range(5))]
    assert happened(["a", "b"], events) == [f"  Pod a: Failed: {number}" for number in range(1, 5)]
