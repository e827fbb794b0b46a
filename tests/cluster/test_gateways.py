"""The three gateways on the cluster, side by side: their images, their manifests, and what passes through them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import httpx
import pytest
import trustme
import yaml

from aiomesh.storefront.v1 import storefront_service_pb2, storefront_service_pb2_grpc
from localmesh.gateways.known import GATEWAYS
from localmesh.kind.images import OVERLAY
from localmesh.kind.programs import CLUSTER, NAMESPACE
from tests.cluster.cluster_mesh import kubectl, node_port, pods
from tests.cluster.load import until
from tests.e2e.local_mesh import spans_of, tags_of
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.cluster_mesh import ClusterMesh, Json

NAMES = tuple(f"gateway-{name}" for name in GATEWAYS)
COMPONENTS = ROOT / "deploy" / "k8s" / "components"
EDGE = "api-edge"
READ = "/v1/products/TEA-0001?strict=true"
CONNECT = "/aiomesh.storefront.v1.StorefrontService/GetProduct"
CALLS = 24

QUICK_END = {"terminationGracePeriodSeconds": 1, "containers": [{"name": "server", "lifecycle": None}]}
PATCHES = (
    ("Service", "gateway-.*", {"type": "NodePort", "externalTrafficPolicy": "Local"}),
    ("Deployment", "gateway-.*", {"replicas": 1, "template": {"spec": QUICK_END}}),
    ("Deployment", EDGE, {"minReadySeconds": 0}),
)
"""For a test: one replica of each gateway, on a port of the node that keeps the client's address; no pauses."""

NOT_CALL_BY_CALL = "one connection for all calls: https://github.com/traefik/traefik/issues/11083"
ONE_CONNECTION = pytest.mark.xfail(reason=NOT_CALL_BY_CALL, strict=True)

CALL_BY_CALL = [pytest.param(name, marks=ONE_CONNECTION if name == "gateway-traefik" else ()) for name in NAMES]

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Gateway:
    """A gateway at a port of the node.

    Attributes:
        name: of its workload.
        url: where it serves HTTPS.
        authority: signed its certificate.
    """

    name: str
    url: str
    authority: trustme.CA

    @property
    def client_address(self) -> str:
        """The address of this machine on the way to the node."""
        with socket.create_connection(self.address) as connection:
            return str(connection.getsockname()[0])

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port."""
        host, _, port = self.url.removeprefix("https://").partition(":")
        return host, int(port)

    def client(self) -> httpx.AsyncClient:
        """A client of HTTP/2. The caller closes it."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return httpx.AsyncClient(base_url=self.url, http2=True, verify=context, trust_env=False, timeout=15)

    def channel(self) -> grpc.aio.Channel:
        """A channel of gRPC. The caller closes it."""
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes())
        return grpc.aio.secure_channel(self.url.removeprefix("https://"), credentials)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def gateways(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Gateway]]:
    """The gateways in front of the edge, which trusts them. Afterwards the cluster is as before."""
    overlay = write_overlay(tmp_path_factory.mktemp("overlay"))
    before, after = rendered(ROOT / OVERLAY), rendered(overlay)
    load_images(after)
    write_certificate(authority)
    try:
        kubectl("apply", f"--kustomize={overlay}")
        rolled_out(*NAMES, EDGE)
        yield {name: Gateway(name, node_port(name).replace("http:", "https:"), authority) for name in NAMES}
    finally:
        added = [one for key, one in after.items() if key not in before]
        kubectl("rollout", "undo", f"deployment/{EDGE}")
        rolled_out(EDGE)
        kubectl("apply", f"--kustomize={ROOT / OVERLAY}")
        kubectl("delete", "--filename=-", "--ignore-not-found", given=yaml.safe_dump_all(added))
        kubectl("delete", "secret", "gateway-tls")
        kubectl("wait", "--for=delete", "pod", "--selector=aiomesh/role=gateway", "--timeout=60s")


def write_overlay(folder: Path) -> Path:
    """An overlay of a user's own: that of kind, with the three gateways."""
    patches = [
        {"target": {"kind": kind, "name": name}, "patch": json.dumps({**HEAD, "kind": kind, "spec": spec})}
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


HEAD = {"apiVersion": "any", "metadata": {"name": "any"}}


def rendered(overlay: Path) -> dict[tuple[str, str], Json]:
    """The objects of an overlay by kind and name."""
    found = yaml.safe_load_all(kubectl("kustomize", str(overlay)))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def load_images(manifests: dict[tuple[str, str], Json]) -> None:
    """Builds the images of the gateways and loads them into the nodes."""
    pods = {name: manifests["Deployment", f"gateway-{name}"]["spec"]["template"]["spec"] for name in GATEWAYS}
    images = {name: pod["containers"][0]["image"] for name, pod in pods.items()}
    for name, image in images.items():
        run("docker", "build", "--quiet", f"--build-arg=GATEWAY={name}", f"--tag={image}", "deploy/gateways")
    run("kind", "load", "docker-image", f"--name={CLUSTER}", *images.values())


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_certificate(authority: trustme.CA) -> None:
    """Writes the Secret that the gateways require, for the addresses of the node."""
    node = node_port("jaeger").removeprefix("http://").partition(":")[0]
    issued = authority.issue_cert(node)
    data = {
        "tls.crt": b"".join(one.bytes() for one in issued.cert_chain_pems).decode(),
        "tls.key": issued.private_key_pem.bytes().decode(),
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gateway-tls"}, "type": "kubernetes.io/tls"}
    kubectl("apply", "--filename=-", given=json.dumps({**secret, "stringData": data}))


def rolled_out(*names: str) -> None:
    for name in names:
        kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")


@pytest.fixture(params=NAMES)
def gateway(request: pytest.FixtureRequest, gateways: dict[str, Gateway]) -> Gateway:
    """Each of the gateways."""
    return gateways[request.param]


async def read(client: httpx.AsyncClient) -> str:
    """Reads a product; returns the id of the trace."""
    response = await client.get(READ)
    assert (response.status_code, response.http_version) == (200, "HTTP/2")
    body = response.json()
    assert body.get("product", body)["sku"] == "TEA-0001", "Envoy transcodes it from gRPC"
    return response.headers["x-trace-id"]


async def call(channel: grpc.aio.Channel) -> str:
    """Reads a product over gRPC; returns the id of the trace."""
    stub: Any = storefront_service_pb2_grpc.StorefrontServiceStub(channel)
    request = stub.GetProduct(storefront_service_pb2.GetProductRequest(sku="TEA-0001", strict=True))
    assert (await request).product.sku == "TEA-0001"
    return str(dict(await request.trailing_metadata())["x-trace-id"])


async def spans(mesh: ClusterMesh, trace_id: str) -> list[Json]:
    """The spans of a trace, with those of the edge and its backends."""
    found: list[Json] = []

    async def complete() -> bool:
        found[:] = await spans_of(session, mesh, trace_id)
        return {"api_edge", "inventory", "pricing"} <= {span["process"]["serviceName"] for span in found}

    async with aiohttp.ClientSession() as session:
        await until(complete, 20)
    return found


def servers(found: list[Json]) -> list[Json]:
    """The spans of the edge for what it was asked."""
    return [
        span
        for span in found
        if span["process"]["serviceName"] == "api_edge" and tags_of(span).get("span.kind") == "server"
    ]


async def pods_that_served(mesh: ClusterMesh, traces: list[str]) -> set[str]:
    """The pods of the edge in these traces."""
    found = await asyncio.gather(*(spans(mesh, trace_id) for trace_id in traces))
    return {tags_of(span["process"])["k8s.pod.name"] for each in found for span in servers(each)}


async def test_rest_and_grpc_are_answered_and_traced(mesh: ClusterMesh, gateway: Gateway) -> None:
    async with gateway.client() as client, gateway.channel() as channel:
        traces = [await read(client), await call(channel)]
    for found in [await spans(mesh, trace_id) for trace_id in traces]:
        assert len(servers(found)) == 1
        assert (gateway.name == "gateway-envoy") == ("envoy" in {span["process"]["serviceName"] for span in found})


async def test_the_edge_believes_what_a_gateway_says_of_the_client(mesh: ClusterMesh, gateway: Gateway) -> None:
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    async with gateway.client() as client:
        answer = await client.post(CONNECT, json={"sku": "TEA-0001", "strict": True}, headers=headers)
    assert answer.status_code == 200
    [span] = servers(await spans(mesh, trace_id))
    assert tags_of(span)["client.address"] == gateway.client_address


async def test_both_edges_get_requests(mesh: ClusterMesh, gateway: Gateway) -> None:
    async with gateway.client() as client:
        traces = await asyncio.gather(*(read(client) for _ in range(CALLS)))
    assert await pods_that_served(mesh, traces) == edges()


@pytest.mark.parametrize("name", CALL_BY_CALL)
async def test_both_edges_get_calls_of_grpc(mesh: ClusterMesh, gateways: dict[str, Gateway], name: str) -> None:
    async with gateways[name].channel() as channel:
        traces = await asyncio.gather(*(call(channel) for _ in range(CALLS)))
    assert await pods_that_served(mesh, traces) == edges()


def edges() -> set[str]:
    """The names of both pods of the edge."""
    found = {pod.name for pod in pods(EDGE)}
    assert len(found) == 2
    return found
