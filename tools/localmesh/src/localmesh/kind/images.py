"""The images that the cluster runs: ours built here, the others as docker has them.

One of ours has two names on the nodes. Its name in the overlay, such as `aiomesh/pricing:dev`, is what pods run, and
moves to each new build. Its name by content, `aiomesh/pricing:3f2a9c0b1d4e`, stays with one build.
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
    """Builds our images and loads all images into the nodes; ours by content, by the name of the workload.

    Raises:
        CannotGoOn: an image of ours cannot be built or loaded, or the overlay does not name it.
    """
    found = images(kubectl("kustomize", str(OVERLAY)))
    names = {service: named(service.workload, found) for service in read_services()}
    builds = {service.workload: _build(service, name, console) for service, name in names.items()}
    _load(*names.values(), *builds.values())
    for image in sorted(found.difference(names.values())):
        _load_if_there(image, console)
    return builds


def images(manifests: str) -> set[str]:
    """The images of the containers in these manifests."""
    return set(re.findall(r"^[ -]+image: (\S+)$", manifests, re.MULTILINE))


def named(workload: str, candidates: set[str]) -> str:
    """The one of these images that a workload of ours runs.

    Raises:
        CannotGoOn: there is none.
    """
    for image in candidates:
        if image.startswith(f"aiomesh/{workload}:"):
            return image
    raise CannotGoOn(f"{OVERLAY} has no container with an image aiomesh/{workload}:TAG")


def _build(service: Service, name: str, console: Console) -> str:
    dockerfile = ("--file=services/Dockerfile", f"--build-arg=SERVICE={service.name}")
    begun = time.monotonic()
    # An attestation of the build holds its time: with it the same content would have another id each time.
    image_id = run("docker", "build", "--quiet", "--provenance=false", *dockerfile, f"--tag={name}", ".").strip()
    build = f"aiomesh/{service.workload}:{image_id.removeprefix('sha256:')[:DIGEST_LENGTH]}"
    run("docker", "tag", image_id, build)
    console.say(f"built {name} in {time.monotonic() - begun:.1f} s: {build}")
    return build


def _load(*names: str) -> None:
    run("kind", "load", "docker-image", f"--name={CLUSTER}", *names)


def _load_if_there(image: str, console: Console) -> None:
    try:
        run("docker", "image", "inspect", image)
        _load(image)
    except CannotGoOn:  # docker has none, or only a part of one for several platforms (kind's issue 3795)
        console.say(f"{image} cannot be loaded from docker: the node pulls it, which takes longer")
