"""The gateways on a cluster: their configuration is that of `make up`, and what it names is there."""

from __future__ import annotations

import base64
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from dotenv import dotenv_values

from localmesh.gateways.gateway import LOCK
from localmesh.gateways.known import GATEWAYS
from tests.contract.locks import read_lock
from tests.contract.manifests import (
    BEHIND_GATEWAYS,
    SERVICES,
    build_overlay,
    container_ports,
    load_settings,
    named,
    of_kind,
    pod_of,
    ways,
    with_components,
    workloads_with,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.manifests import Manifest

OWN = {"ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"}
ADDRESSES = {
    "nginx": (r"server ([\w-]+)\.NAMESPACE:(\d+) resolve", "upstreams.conf"),
    "envoy": (r"\{address: ([\w-]+), port_value: (\d+)\}\}", "addresses.yaml"),
    "traefik": (r'"(?:http|h2c)://([\w-]+):(\d+)"', "addresses.yml"),
}
"""How each gateway writes the addresses that it calls, and where."""

EDGE = next(service for service in SERVICES if service.protocol == "http")
GRACE = {"nginx": r"worker_shutdown_timeout (\d+)s", "traefik": r"GRACETIMEOUT=(\d+)"}
"""How long each gateway waits for its requests; Envoy does not."""

each_gateway = pytest.mark.parametrize("name", GATEWAYS)


def files(name: str) -> dict[str, bytes]:
    """The files of the ConfigMap that a gateway mounts."""
    volumes = {volume["name"]: volume for volume in pod_of(deployment(name))["volumes"]}
    found = named(BEHIND_GATEWAYS, "ConfigMap", volumes["configuration"]["configMap"]["name"])
    binary = {name: base64.b64decode(text) for name, text in found.get("binaryData", {}).items()}
    return {name: text.encode() for name, text in found["data"].items()} | binary


def deployment(name: str) -> Manifest:
    return named(BEHIND_GATEWAYS, "Deployment", f"gateway-{name}")


def configuration(name: str) -> Iterator[Path]:
    """The files that the program reads, in `make up` and on a cluster."""
    for path in GATEWAYS[name].configuration.iterdir():
        if path.stem not in {"requirements", "kustomization"}:
            yield path


def version(name: str) -> str:
    """The version of the program that its lock pins."""
    [pin] = read_lock((GATEWAYS[name].configuration / LOCK).read_text())
    return pin.version


@each_gateway
def test_the_configuration_is_that_of_make_up_byte_for_byte(name: str) -> None:
    [container] = pod_of(deployment(name))["containers"]
    mounted = files(name)
    for path in configuration(name):
        if path.suffix == ".env":
            reference = container["envFrom"][0]["configMapRef"]["name"]
            assert named(BEHIND_GATEWAYS, "ConfigMap", reference)["data"] == dotenv_values(path, interpolate=False)
        else:
            assert mounted[path.name] == path.read_bytes()


@each_gateway
def test_a_gateway_alone_adds_its_own_objects_to_an_overlay(name: str) -> None:
    before = {(one["kind"], one["metadata"]["name"]) for one in build_overlay("dev")}
    found = {(one["kind"], one["metadata"]["name"]) for one in with_components("dev", f"gateway-{name}")}
    own = {(kind, called) for kind, called in found - before if called.startswith(f"gateway-{name}")}
    assert {kind for kind, _ in own} == OWN
    others = {(kind, re.sub("-[a-z0-9]{10}$", "", called)) for kind, called in found - before - own}
    assert others - {("Service", "api-edge-ready")} == {("ConfigMap", "api-edge")}


@each_gateway
def test_what_a_gateway_calls_is_a_service_with_that_port(name: str) -> None:
    pattern, file = ADDRESSES[name]
    found = re.findall(pattern, files(name)[file].decode())
    assert len(found) >= 2
    for called, port in found:
        service = named(BEHIND_GATEWAYS, "Service", called)
        [workload] = workloads_with(BEHIND_GATEWAYS, service["spec"]["selector"])
        headless = service["spec"].get("clusterIP") == "None"
        ports = container_ports(workload) if headless else {one["port"] for one in service["spec"]["ports"]}
        assert int(port) in ports, called


def test_nginx_knows_only_edges_that_are_ready() -> None:
    """It checks no health, and passes over an edge that refuses connections only so often."""
    spec = named(BEHIND_GATEWAYS, "Service", "api-edge-ready")["spec"]
    assert (spec["clusterIP"], "publishNotReadyAddresses" in spec) == ("None", False)


@each_gateway
def test_policies_let_a_gateway_call_only_edges_and_the_traces(name: str) -> None:
    gateway, edge = f"gateway-{name}", EDGE.workload
    calls = {(target, port) for source, target, port in ways(BEHIND_GATEWAYS, "egress") if source == gateway}
    assert calls == {(edge, "http"), (edge, "grpc"), ("jaeger", 4317)}
    [rule] = named(BEHIND_GATEWAYS, "NetworkPolicy", "gateway")["spec"]["ingress"]
    assert rule == {"ports": [{"port": "https", "protocol": "TCP"}]}


@pytest.mark.parametrize("address", ["10.244.0.7", "172.20.1.9", "192.168.3.4", "100.64.8.9", "fd00:10:244::7"])
def test_an_edge_behind_gateways_trusts_private_addresses(address: str) -> None:
    trusted = load_settings(BEHIND_GATEWAYS, EDGE).trusted_proxies
    assert any(ip_address(address) in network for network in trusted)
    assert not any(ip_address(one) in network for one in ("8.8.8.8", "2001:db8::1") for network in trusted)
    assert not load_settings("production", EDGE).trusted_proxies


@each_gateway
def test_the_certificate_is_the_secret_that_cert_manager_writes(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod_of(deployment(name))["volumes"]}
    [container] = pod_of(deployment(name))["containers"]
    assert volumes["certificate"]["secret"] == {"secretName": "gateway-tls"}
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "certificate"]
    texts = " ".join(text.decode() for file, text in files(name).items() if not file.endswith(".binpb"))
    assert {f"{mount['mountPath']}/tls.crt", f"{mount['mountPath']}/tls.key"} <= set(
        re.findall(r"/etc/[\w./-]+", texts)
    )


@pytest.mark.parametrize("name", GRACE)
def test_a_gateway_has_time_to_finish_its_requests(name: str) -> None:
    pod = pod_of(deployment(name))
    [container] = pod["containers"]
    [own] = [found for path in configuration(name) for found in re.findall(GRACE[name], path.read_text())]
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert waits + int(own) < pod["terminationGracePeriodSeconds"]


@each_gateway
def test_the_images_have_the_version_of_the_lock(name: str) -> None:
    [container] = pod_of(deployment(name))["containers"]
    assert container["image"] == f"aiomesh/gateway-{name}:{version(name)}"
    [official] = pod_of(officially(name))["containers"]
    image, _, tag = official["image"].partition(":")
    assert (image.rpartition("/")[2], tag.removeprefix("v")) == (name, version(name))


@each_gateway
def test_the_official_images_change_nothing_else_but_a_folder_to_write(name: str) -> None:
    [ours], [theirs] = pod_of(deployment(name))["containers"], pod_of(officially(name))["containers"]
    assert {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)} <= {"image", "volumeMounts"}
    more = [mount for mount in theirs["volumeMounts"] if mount not in ours["volumeMounts"]]
    assert [mount["mountPath"] for mount in more] == (["/var/cache/nginx"] if name == "nginx" else [])


def officially(name: str) -> Manifest:
    """The Deployment of a gateway with the image of its own project."""
    components = (*(f"gateway-{each}" for each in GATEWAYS), "gateway-official-images")
    [found] = [
        one
        for one in with_components("production", *components)
        if (one["kind"], one["metadata"]["name"]) == ("Deployment", f"gateway-{name}")
    ]
    return found


def test_every_gateway_has_a_disruption_budget_and_two_replicas() -> None:
    names = {f"gateway-{name}" for name in GATEWAYS}
    assert names < {one["metadata"]["name"] for one in of_kind(BEHIND_GATEWAYS, "PodDisruptionBudget")}
    assert {named(BEHIND_GATEWAYS, "Deployment", name)["spec"]["replicas"] for name in names} == {2}
