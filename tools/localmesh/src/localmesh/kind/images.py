"""The images that the cluster runs: ours built here, the others as docker has them."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

from localmesh.console import Console
from localmesh.kind.programs import CLUSTER, CannotGoOn, kubectl, run
from localmesh.services import read_services

TAG = "dev"  # the one that the overlay names
OVERLAY = Path("deploy/k8s/overlays/kind")


def build(console: Console) -> Mapping[str, str]:
    """Builds an image of each service; their ids by the workload's name.

    Raises:
        CannotGoOn: a build failed.
    """
    ids = {}
    for service in read_services():
        image, begun = name(service.workload), time.monotonic()
        ids[service.workload] = _build(service.name, image)
        console.say(f"built {image} in {time.monotonic() - begun:.1f} s")
    return ids


def name(workload: str) -> str:
    """The name and tag of the image of one of our workloads."""
    return f"aiomesh/{workload}:{TAG}"


def load(ours: Mapping[str, str], console: Console) -> None:
    """Loads into the node what it lacks of our images, and of the others those that docker has.

    Raises:
        CannotGoOn: one of ours cannot be loaded.
    """
    own = [name(workload) for workload in ours]
    _load(*own)
    for image in sorted(named(kubectl("kustomize", str(OVERLAY))) - set(own)):
        try:
            run("docker", "image", "inspect", image)
            _load(image)
        except CannotGoOn:  # docker has none, or only a part of one for several platforms (kind's issue 3795)
            console.say(f"{image} cannot be loaded from docker: the node pulls it, which takes longer")


def named(manifests: str) -> set[str]:
    """The images that the containers of these manifests name."""
    return set(re.findall(r"^[ -]+image: (\S+)$", manifests, re.MULTILINE))


def _build(service: str, image: str) -> str:
    # An attestation of the build holds its time: with it the same content would have another id each time.
    which = ("--file=services/Dockerfile", f"--build-arg=SERVICE={service}", f"--tag={image}")
    return run("docker", "build", "--quiet", "--provenance=false", *which, ".").strip()


def _load(*images: str) -> None:
    run("kind", "load", "docker-image", f"--name={CLUSTER}", *images)
