"""Applies the overlay unchanged, and restarts only the Deployments whose image was rebuilt.

A rebuilt image has the same tag, so the pod template does not change and an apply does not replace the pods. So an
annotation of the Deployment, not of its template, names the build that it runs. The overlay does not contain this
annotation, and `kubectl apply` ignores it: a plain apply afterwards restarts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localmesh.kind.images import OVERLAY
from localmesh.kind.programs import kubectl
from localmesh.kind.settings import TRACES_PORT
from localmesh.services import read_services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localmesh.kind.settings import KindSettings

BUILD = "aiomesh/build"
BUILDS = f'{{range .items[*]}}{{.metadata.name}}{{" "}}{{.metadata.annotations.{BUILD}}}{{"\\n"}}{{end}}'


def apply(builds: Mapping[str, str], settings: KindSettings) -> None:
    """Applies the overlay; `builds` holds the image by content that each Deployment must run, by its name.

    Raises:
        CannotGoOn: kubectl failed.
    """
    before = _builds()
    kubectl("apply", f"--kustomize={OVERLAY}")
    if settings.traces_port != TRACES_PORT:
        _move_trace_links(settings.traces_port)
    for workload, build in builds.items():
        if before.get(workload, build) != build:
            kubectl("rollout", "restart", f"deployment/{workload}")
        kubectl("annotate", f"deployment/{workload}", f"{BUILD}={build}", "--overwrite")


def _builds() -> dict[str, str]:
    """The build that each Deployment runs, by its name; empty if it has no annotation."""
    lines = kubectl("get", "deployments", f"--output=jsonpath={BUILDS}").splitlines()
    return {name: build for name, _, build in (line.partition(" ") for line in lines)}


def _move_trace_links(port: int) -> None:
    url = f"http://localhost:{port}/trace/{{trace_id}}"
    for service in read_services():
        if service.protocol == "http":
            kubectl("set", "env", f"deployment/{service.workload}", f"{service.prefix}TRACE_URL={url}")
