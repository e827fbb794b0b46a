"""The three gateways on the cluster, side by side in front of the mesh, and clients that trust their certificate."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import trustme
import yaml

from localmesh.gateways.known import GATEWAYS
from localmesh.kind.images import OVERLAY
from localmesh.kind.programs import CLUSTER, NAMESPACE
from tests.cluster.cluster_mesh import kubectl, node_port, pods
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.cluster_mesh import Json

NAMES = tuple(f"gateway-{name}" for name in GATEWAYS)
COMPONENTS = ROOT / "deploy" / "k8s" / "components"
EDGE = "api-edge"

ANY = {"apiVersion": "any", "metadata": {"name": "any"}}
QUICK_END = {"terminationGracePeriodSeconds": 1, "containers": [{"name": "server", "lifecycle": None}]}
PATCHES = (
    ("Service", "gateway-.*", {"type": "NodePort", "externalTrafficPolicy": "Local"}),
    ("Deployment", "gateway-.*", {"replicas": 1, "template": {"spec": QUICK_END}}),
    ("Deployment", EDGE, {"minReadySeconds": 0}),
)
"""For a test: one replica of each gateway, on a port of the node that keeps the client's address; no pauses."""


@dataclass(frozen=True)
class Gateway:
    """A gateway at a port of the node.

    Attributes:
        name: of its workload.
        address: where it serves HTTPS.
        authority: signed its certificate.
    """

    name: str
    address: str
    authority: trustme.CA

    @property
    def client_address(self) -> str:
        """The address of this machine on the way to the node."""
        host, _, port = self.address.partition(":")
        with socket.create_connection((host, int(port))) as connection:
            return str(connection.getsockname()[0])

    def client(self) -> httpx.AsyncClient:
        """A client of HTTP/2. The caller closes it."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return httpx.AsyncClient(
            base_url=f"https://{self.address}", http2=True, verify=context, trust_env=False, timeout=20
        )

    def channel(self, *options: tuple[str, Any]) -> grpc.aio.Channel:
        """A channel of gRPC. The caller closes it."""
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes())
        return grpc.aio.secure_channel(self.address, credentials, options)


@dataclass(frozen=True)
class Fronts:
    """The gateways by their names.

    Attributes:
        gateways: in front of the edge, which does not trust them yet.
        edge: the manifest of the edge that trusts them.
    """

    gateways: dict[str, Gateway]
    edge: Json

    def roll_out_the_edge(self) -> None:
        """Replaces the pods of the edge by ones that trust the gateways; returns when the old ones are gone."""
        old = [f"pod/{pod.name}" for pod in pods(EDGE)]
        _apply(self.edge)
        _wait_for_rollouts(EDGE)
        kubectl("wait", "--for=delete", *old, "--timeout=60s")


@contextmanager
def fronts(folder: Path) -> Iterator[Fronts]:
    """Runs the gateways of an overlay that it writes into a folder. Afterwards the cluster is as before."""
    before = _rendered(ROOT / OVERLAY)
    after = _rendered(_overlay(folder))
    added = [one for key, one in after.items() if key not in before]
    _load_images(after)
    authority = _certificate()
    try:
        _apply(*added)
        _wait_for_rollouts(*NAMES)
        gateways = {name: Gateway(name, node_port(name).removeprefix("http://"), authority) for name in NAMES}
        yield Fronts(gateways, after["Deployment", EDGE])
    finally:
        _restore(before["Deployment", EDGE], added)


def _overlay(folder: Path) -> Path:
    """An overlay of a user's own: that of kind, with the three gateways."""
    patches = [
        {"target": {"kind": kind, "name": name}, "patch": json.dumps({**ANY, "kind": kind, "spec": spec})}
        for kind, name, spec in PATCHES
    ]
    own = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [os.path.relpath(ROOT / OVERLAY, folder)],
        "components": [os.path.relpath(COMPONENTS / name, folder) for name in NAMES],
        "patches": patches,
    }
    (folder / "kustomization.yaml").write_text(json.dumps(own))
    return folder


def _rendered(overlay: Path) -> dict[tuple[str, str], Json]:
    """The objects of an overlay by kind and name."""
    found = yaml.safe_load_all(kubectl("kustomize", str(overlay)))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def _load_images(manifests: dict[tuple[str, str], Json]) -> None:
    """Builds the images of the gateways and loads them into the nodes."""
    specs = {name: manifests["Deployment", f"gateway-{name}"]["spec"]["template"]["spec"] for name in GATEWAYS}
    images = {name: spec["containers"][0]["image"] for name, spec in specs.items()}
    for name, image in images.items():
        _run("docker", "build", "--quiet", f"--build-arg=GATEWAY={name}", f"--tag={image}", "deploy/gateways")
    _run("kind", "load", "docker-image", f"--name={CLUSTER}", *images.values())


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _certificate() -> trustme.CA:
    """Writes the Secret that the gateways require, for the address of the node; returns the authority."""
    authority = trustme.CA()
    issued = authority.issue_cert(node_port("jaeger").removeprefix("http://").partition(":")[0])
    data = {
        "tls.crt": b"".join(one.bytes() for one in issued.cert_chain_pems).decode(),
        "tls.key": issued.private_key_pem.bytes().decode(),
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway-tls"}, "type": "kubernetes.io/tls"}
    _apply({**secret, "stringData": data})
    return authority


def _restore(edge: Json, added: list[Json]) -> None:
    """Applies the edge as it was, and deletes what was added."""
    _apply({**edge, "spec": {**edge["spec"], "minReadySeconds": 0}})
    kubectl("delete", "--filename=-", "--ignore-not-found", "--wait=false", given=yaml.safe_dump_all(added))
    kubectl("delete", "secret", "gateway-tls")
    _wait_for_rollouts(EDGE)
    _apply(edge)
    kubectl("wait", "--for=delete", "pod", "--selector=aiomesh/role=gateway", "--timeout=60s")


def _apply(*manifests: Json) -> None:
    kubectl("apply", "--filename=-", given=yaml.safe_dump_all(manifests))


def _wait_for_rollouts(*names: str) -> None:
    for name in names:
        kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")
