"""Requires a cluster that the tests may disturb, and shows its state when a test fails."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster_mesh import SERVICES, ClusterMesh, KubectlFailed, kubectl, restarts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LOG_LINES = 8
SECONDS = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Adds the marker `cluster` and a time limit that suffices for kubectl on a busy machine."""
    for item in items:
        if "/cluster/" in str(item.path):
            item.add_marker(pytest.mark.cluster)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session", autouse=True)
def _may_be_disturbed() -> None:
    """Requires that the current context is a kind cluster, or is named by AIOMESH_TEST_CONTEXT."""
    asked = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True, check=False)
    context = asked.stdout.strip()
    if not context:
        pytest.exit("kubectl has no current context: create a cluster with make kind-up", returncode=2)
    if not context.startswith("kind-") and context != os.environ.get("AIOMESH_TEST_CONTEXT"):
        pytest.exit(
            f"the current context {context} is not a kind cluster, and these tests kill pods and delete data: "
            f"set AIOMESH_TEST_CONTEXT={context} if this is intended",
            returncode=2,
        )


@pytest.fixture
def mesh() -> ClusterMesh:
    """The mesh on the cluster."""
    return ClusterMesh()


@pytest.fixture(scope="session")
def restarts_so_far() -> dict[str, int]:
    """The number of container restarts of each pod at the end of the test before."""
    return restarts()


@pytest.fixture(autouse=True)
def _restarts(request: pytest.FixtureRequest, restarts_so_far: dict[str, int]) -> Iterator[None]:
    """Checks that no container of the mesh restarts, unless the test has the marker `kills`."""
    yield
    before, after = restarts_so_far.copy(), restarts()
    restarts_so_far.update(after)
    if not request.node.get_closest_marker("kills"):
        restarted = {name: number for name, number in after.items() if number != before.get(name, 0)}
        assert not restarted, f"containers were restarted; the restarts before: {before}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the state of the cluster to a failure: its pods, its events, the ends of the logs."""
    report = yield
    if report.failed and item.get_closest_marker("cluster"):
        report.sections.append(("cluster", "\n\n".join(_state())))
    return report


def _state() -> Iterator[str]:
    for command in (
        ("get", "pods", "--output=wide"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        *(
            ("logs", f"--selector=app.kubernetes.io/name={app}", "--prefix", f"--tail={LOG_LINES}", *previous)
            for app in SERVICES
            for previous in ((), ("--previous",))
        ),
    ):
        try:
            text = kubectl(*command)
        except KubectlFailed as failure:
            text = str(failure)
        yield f"$ kubectl {' '.join(command)}\n{text}"
