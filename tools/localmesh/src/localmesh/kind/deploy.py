"""Applies the overlay so that just those workloads roll whose image or manifest changed.

An image keeps its tag when it is built anew, so an annotation of the pod template holds its id: another id, another
template. The annotation stays out of what `kubectl apply` remembers as applied, so that an apply of the plain overlay
afterwards does not take it away, which would roll everything.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from localmesh.kind.images import OVERLAY
from localmesh.kind.objects import NAMESPACE
from localmesh.kind.programs import kubectl
from localmesh.kind.settings import TRACES_PORT, KindSettings

IMAGE_ID = "aiomesh/image-id"


def apply(image_ids: Mapping[str, str], settings: KindSettings) -> None:
    """Applies the overlay with the ids of our images, by the name of their Deployment, and the moved ports.

    Raises:
        CannotGoOn: the cluster refused something.
    """
    with tempfile.TemporaryDirectory() as directory:
        overlay = os.path.relpath(OVERLAY.resolve(), Path(directory).resolve())
        kustomization = on_top_of(overlay, image_ids, settings)
        (Path(directory) / "kustomization.yaml").write_text(json.dumps(kustomization))
        kubectl("apply", f"--kustomize={directory}")
    kubectl("apply", "set-last-applied", "--filename=-", given=deployments(kubectl("kustomize", str(OVERLAY))))


def on_top_of(overlay: str, image_ids: Mapping[str, str], settings: KindSettings) -> dict[str, object]:
    """A kustomization that adds to `overlay` what only this machine knows; as JSON it is YAML too."""
    deployments = [
        {"target": {"kind": "Deployment", "name": name}, "patch": _noting(image_ids[name])} for name in image_ids
    ]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [overlay],
        "patches": deployments,
        "configMapGenerator": [_trace_links(settings)] if settings.traces_port != TRACES_PORT else [],
    }


def deployments(manifests: str) -> str:
    """Those documents of a YAML stream that are Deployments."""
    documents = re.split(r"^---\n", manifests, flags=re.MULTILINE)
    return "---\n".join(one for one in documents if re.search(r"^kind: Deployment$", one, re.MULTILINE))


def _noting(image_id: str) -> str:
    metadata = {"annotations": {IMAGE_ID: image_id}}
    # A patch names an object, and the target says which one is meant.
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "any"}}
    return json.dumps({**patch, "spec": {"template": {"metadata": metadata}}})


def _trace_links(settings: KindSettings) -> dict[str, object]:
    url = f"EDGE_TRACE_URL=http://localhost:{settings.traces_port}/trace/{{trace_id}}"
    return {"name": "api-edge", "namespace": NAMESPACE, "behavior": "merge", "literals": [url]}
