"""The images that the cluster runs: ours, which are built here, and others that docker has.

Each of our images has two names on the nodes. Pods use the name in the overlay, such as `aiomesh/pricing:dev`, which
moves to each new build. The name by content, such as `aiomesh/pricing:3f2a9c0b1d4e`, belongs to one build.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from localmesh.kind.programs import CLUSTER, CannotGoOn, kubectl, run
from localmesh.services import read_services

if TYPE_CHECKING:
    from localmesh.console import Console
    from localmesh.services import Service

OVERLAY = Path("deploy/k8s/overlays/kind")
DIGEST_LENGTH = 12  # hexadecimal digits, as docker prints them


def provide(console: Console) -> dict[str, str]:
    """Builds our images and loads all images into the nodes; returns the name by content of ours, by workload.

    Raises:
        CannotGoOn: an image of ours cannot be built or loaded, or the overlay does not name it.
    """
    found = images(kubectl("kustomize", str(OVERLAY)))
    names = {service: image_of(service.workload, found) for service in read_services()}
    builds = {service.workload: _build(service, name, console) for service, name in names.items()}
    _load(*names.values(), *builds.values())
    for image in sorted(found.difference(names.values())):
        _load_if_there(image, console)
    return builds


def images(manifests: str) -> set[str]:
    """The images of the containers in the manifests."""
    return set(re.findall(r"^[ -]+image: (\S+)$", manifests, re.MULTILINE))


def image_of(workload: str, candidates: set[str]) -> str:
    """The image among `candidates` that one of our workloads runs.

    Raises:
        CannotGoOn: there is none.
    """
    for image in candidates:
        if image.startswith(f"aiomesh/{workload}:"):
            return image
    raise CannotGoOn(f"{OVERLAY} has no container with an image aiomesh/{workload}:TAG")


def _build(service: Service, name: str, console: Console) -> str:
    dockerfile = ("--file=services/Dockerfile", f"--build-arg=SERVICE={service.name}")
    start = time.monotonic()
    # A provenance attestation contains the time, so the same content would get a different id in each build.
    image_id = run("docker", "build", "--quiet", "--provenance=false", *dockerfile, f"--tag={name}", ".").strip()
    build = f"aiomesh/{service.workload}:{image_id.removeprefix('sha256:')[:DIGEST_LENGTH]}"
    run("docker", "tag", image_id, build)
    console.say(f"built {name} in {time.monotonic() - start:.1f} s: {build}")
    return build


def _load(*names: str) -> None:
    run("kind", "load", "docker-image", f"--name={CLUSTER}", *names)


def _load_if_there(image: str, console: Console) -> None:
    try:
        run("docker", "image", "inspect", image)
        _load(image)
    except CannotGoOn:  # docker has no such image, or a multi-platform one in part (kubernetes-sigs/kind#3795)
        console.say(f"{image} cannot be loaded from docker: the node pulls it, which takes longer")
