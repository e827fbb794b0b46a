"""skaffold.yaml with the real Skaffold, on a copy of the sources, in a separate namespace."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from localmesh.kind.programs import NAMESPACE
from tests.cluster.cluster_mesh import SERVICES, Json, KubectlFailed, kubectl, objects
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEV = "aiomesh-dev"
INPUTS = ("skaffold.yaml", ".dockerignore", "deploy", "libs", "services")
TITLE = 'title="aiomesh"'
ASKED_FOR = "deployments,statefulsets,services,configmaps,secrets,persistentvolumeclaims"
FIRST_ANSWER = 10.0  # seconds, once everything is Ready


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Path]:
    """A copy of the files that Skaffold reads. Deletes the deployment after the test."""
    if not shutil.which("skaffold"):
        pytest.skip("needs skaffold on the PATH")
    assert not kubectl("get", "namespace", DEV, "--ignore-not-found"), "in use: end it with `skaffold delete`"
    for name in INPUTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    yield tmp_path
    skaffold("delete", tmp_path)
    wait_until_deleted()


@pytest.mark.timeout(600)
def test_skaffold_replaces_only_the_pods_of_changed_services(sources: Path) -> None:
    mesh = state(NAMESPACE)
    skaffold("run", sources)
    first = pods()
    assert answer(first["api-edge"], "v1/products/TEA-0001?strict=true")["price"]

    edit(sources / "services", TITLE, 'title="aiomesh, changed"')
    skaffold("run", sources)
    second = pods()
    assert answer(second["api-edge"], "openapi.json")["info"]["title"] == "aiomesh, changed"
    assert {app for app in first if first[app] != second[app]} == {"api-edge"}

    skaffold("delete", sources)
    wait_until_deleted()
    assert state(NAMESPACE) == mesh


def skaffold(command: str, sources: Path) -> None:
    """Runs Skaffold on the current context."""
    done = subprocess.run(["skaffold", command], cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def wait_until_deleted() -> None:
    """Waits until the namespace is deleted."""
    kubectl("wait", "--for=delete", f"namespace/{DEV}", "--timeout=120s")


def edit(folder: Path, old: str, new: str) -> None:
    """Replaces a text that one Python file below a folder contains."""
    [file] = [each for each in folder.rglob("*.py") if old in each.read_text()]
    file.write_text(file.read_text().replace(old, new))


def pods() -> dict[str, str]:
    """The name of the one pod of each workload, without those being deleted."""
    found = [one["metadata"] for one in objects("pods", namespace=DEV)]
    alive = [(one["labels"]["app.kubernetes.io/name"], one["name"]) for one in found if "deletionTimestamp" not in one]
    assert sorted(app for app, _ in alive) == sorted([*SERVICES, "jaeger", "postgres"])
    return dict(alive)


def answer(pod: str, path: str) -> Json:
    """The response of the edge in this pod, through the API server; retries until it is not an error."""
    give_up = time.monotonic() + FIRST_ANSWER
    while True:
        try:
            return json.loads(kubectl("get", f"--raw=/api/v1/namespaces/{DEV}/pods/{pod}:8080/proxy/{path}"))
        except KubectlFailed:
            if time.monotonic() > give_up:
                raise


def state(namespace: str) -> dict[tuple[str, str], Json]:
    """The specs in a namespace, by kind and name, without the replicas, which autoscalers choose."""
    return {
        (one["kind"], one["metadata"]["name"]): (
            one["metadata"]["uid"],
            one.get("data"),
            one.get("spec", {}).get("template"),
        )
        for one in objects(ASKED_FOR, namespace=namespace)
    }
