"""The overlay `kind`, applied by plain kubectl after `make kind-up`."""

from __future__ import annotations

import pytest

from localmesh.kind.images import OVERLAY
from localmesh.kind.programs import CONTEXT
from tests.cluster.cluster_mesh import Json, kubectl, objects
from tests.repository import ROOT

WORKLOADS = "deployments,statefulsets"


def test_a_plain_apply_after_kind_up_changes_nothing() -> None:
    if kubectl("config", "current-context").strip() != CONTEXT:
        pytest.skip("needs the cluster of make kind-up")
    before = specs()
    kubectl("apply", f"--kustomize={ROOT / OVERLAY}")
    assert specs() == before


def specs() -> dict[tuple[str, str], Json]:
    """The spec of each workload, by kind and name, without the replicas, which autoscalers choose."""
    return {(one["kind"], one["metadata"]["name"]): one["spec"] | {"replicas": None} for one in objects(WORKLOADS)}
