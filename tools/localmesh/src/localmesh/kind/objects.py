"""What is read of the cluster's objects: the few fields that tell how a workload does."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from localmesh.kind.programs import kubectl

REVISION = "deployment.kubernetes.io/revision"  # of a Deployment, and of the ReplicaSet that it stands for


class Part(BaseModel):
    """A part of an object as the API server writes it; unknown fields are left out."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Owner(Part):
    """Who made an object."""

    name: str


class Metadata(Part):
    """What every object has."""

    name: str
    generation: int = 0
    annotations: dict[str, str] = {}
    owner_references: list[Owner] = []

    @property
    def owners(self) -> set[str]:
        """The names of those who made the object."""
        return {owner.name for owner in self.owner_references}


class Named(Part):
    """Any object."""

    metadata: Metadata


Kind = TypeVar("Kind", bound=Named)


class WorkloadSpec(Part):
    """What a workload shall be."""

    replicas: int


class Condition(Part):
    """One fact about a workload; `status` is True, False or Unknown, as a word."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class WorkloadStatus(Part):
    """What a workload is."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    conditions: list[Condition] = []


class Workload(Named):
    """A Deployment or a StatefulSet."""

    kind: str
    spec: WorkloadSpec
    status: WorkloadStatus


def makers(workload: Workload, replica_sets: Sequence[Named]) -> list[str]:
    """The names of a workload and of its newest ReplicaSet: one of them owns the pods of the newest template."""
    name, revision = workload.metadata.name, workload.metadata.annotations.get(REVISION)
    owned = [one.metadata for one in replica_sets if name in one.metadata.owners]
    return [name, *(one.name for one in owned if one.annotations.get(REVISION) == revision)]


class Target(Part):
    """What an autoscaler scales, or an event tells of."""

    kind: str
    name: str


class AutoscalerSpec(Part):
    """What an autoscaler may do."""

    min_replicas: int
    scale_target_ref: Target


class Autoscaler(Named):
    """A HorizontalPodAutoscaler."""

    spec: AutoscalerSpec


class Waiting(Part):
    """Why a container does not run."""

    reason: str = ""
    message: str = ""


class ContainerState(Part):
    """How a container is; running and terminated are not read."""

    waiting: Waiting | None = None


class ContainerStatus(Part):
    """A container of a pod."""

    name: str
    ready: bool
    restart_count: int
    state: ContainerState


class PodStatus(Part):
    """How a pod is."""

    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []

    @property
    def is_ready(self) -> bool:
        """Whether all its containers serve; one that has not been scheduled has none yet."""
        return bool(self.container_statuses) and all(one.ready for one in self.container_statuses)

    @property
    def containers(self) -> list[ContainerStatus]:
        """All containers that have been looked at, in the order of their start."""
        return [*self.init_container_statuses, *self.container_statuses]


class Pod(Named):
    """A pod."""

    status: PodStatus


class Event(Named):
    """Something that happened to an object."""

    type: str
    reason: str = ""
    message: str = ""
    count: int | None = None
    involved_object: Target


class ServicePort(Part):
    """A port of a Service."""

    port: int
    node_port: int | None = None


class ServiceSpec(Part):
    """Where a Service listens."""

    ports: list[ServicePort]


class Service(Named):
    """A Service."""

    spec: ServiceSpec


class _Items(BaseModel):
    items: list[object] = Field(default_factory=list)


def listed(kind: type[Kind], resource: str, *options: str) -> list[Kind]:
    """The objects of a resource in our namespace, as kubectl lists them.

    Raises:
        CannotGoOn: kubectl failed.
    """
    answer = kubectl("get", resource, "--output=json", *options)
    return [kind.model_validate(item) for item in _Items.model_validate_json(answer).items]
