"""The objects of the overlays, as kustomize builds them, and what they select; needs no cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from localmesh.gateways.known import GATEWAYS
from localmesh.services import read_services
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic_settings import BaseSettings

    from localmesh.services import Service

Manifest = dict[str, Any]

BEHIND_GATEWAYS = "production behind gateways"
NAMESPACES = {"kind": "aiomesh-kind", "dev": "aiomesh-dev", "production": "aiomesh", BEHIND_GATEWAYS: "aiomesh"}
OVERLAYS = tuple(NAMESPACES)
WORKLOADS = {"Deployment", "StatefulSet"}
K8S = Path("deploy") / "k8s"
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
SERVICES = read_services(ROOT)
BACKENDS = tuple(service for service in SERVICES if service.protocol == "grpc")
OWNERS = tuple(service for service in SERVICES if service.database)


def each(services: Sequence[Service]) -> pytest.MarkDecorator:
    """Runs a test on each of these services."""
    return pytest.mark.parametrize("service", services, ids=[service.name for service in services])


@cache
def build_overlay(overlay: str, root: Path = ROOT) -> list[Manifest]:
    """The objects of an overlay, as `kubectl apply -k` would send them."""
    if overlay == BEHIND_GATEWAYS:
        return with_components("production", *(f"gateway-{name}" for name in GATEWAYS))
    return _build(root / K8S / "overlays" / overlay)


@cache
def with_components(overlay: str, *components: str) -> list[Manifest]:
    """The objects of an overlay of a user's own: one of ours with components."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        own = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": NAMESPACES[overlay],
            "resources": [os.path.relpath(ROOT / K8S / "overlays" / overlay, folder)],
            "components": [os.path.relpath(ROOT / K8S / "components" / one, folder) for one in components],
        }
        (folder / "kustomization.yaml").write_text(json.dumps(own))
        return _build(folder)


def _build(folder: Path) -> list[Manifest]:
    build = _build_command()
    if build is None:
        pytest.skip("neither kustomize nor kubectl is on the PATH")
    done = subprocess.run([*build, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "a warning"
    return list(yaml.safe_load_all(done.stdout))


def _build_command() -> list[str] | None:
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def of_kind(overlay: str, *kinds: str) -> list[Manifest]:
    """The objects of an overlay of these kinds."""
    return [found for found in build_overlay(overlay) if found["kind"] in kinds]


def named(overlay: str, kind: str, name: str) -> Manifest:
    """One object of an overlay."""
    [found] = [found for found in of_kind(overlay, kind) if found["metadata"]["name"] == name]
    return found


def pod_of(workload: Manifest) -> Manifest:
    """The pod of a workload."""
    pod: Manifest = workload["spec"]["template"]["spec"]
    return pod


def labels_of(workload: Manifest) -> dict[str, str]:
    """The labels of a workload's pods."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def server_of(overlay: str, service: Service) -> Manifest:
    """The container of a service."""
    [container] = pod_of(named(overlay, "Deployment", service.workload))["containers"]
    return dict(container)


def config_map(overlay: str, service: Service) -> dict[str, str]:
    """The settings in the service's own ConfigMap."""
    reference = server_of(overlay, service)["envFrom"][0]["configMapRef"]["name"]
    data: dict[str, str] = named(overlay, "ConfigMap", reference)["data"]
    return data


def settings_of(service: Service) -> type[BaseSettings]:
    """The class of a service's settings."""
    found: type[BaseSettings] = import_module(f"{service.name}.settings").Settings
    return found


def load_settings(overlay: str, service: Service) -> Any:
    """The settings as the process reads them."""
    prefix = str(settings_of(service).model_config["env_prefix"])
    values = {name.removeprefix(prefix).lower(): value for name, value in config_map(overlay, service).items()}
    return settings_of(service).model_validate(values)


def selectors(overlay: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The objects of the overlay that select pods by label, with their labels."""
    for found in build_overlay(overlay):
        who, spec = f"{found['kind']} {found['metadata']['name']}", found.get("spec", {})
        match found["kind"]:
            case "Service":
                yield who, spec["selector"]
            case "Deployment" | "StatefulSet" | "PodDisruptionBudget":
                yield who, spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                yield who, spec["podSelector"].get("matchLabels", {})
                yield from ((who, peer["podSelector"]["matchLabels"]) for peer in own_peers(spec))


def own_peers(policy: Manifest) -> list[Manifest]:
    """The peers of a policy in its own namespace."""
    return [peer for peer in peers_of(policy) if "namespaceSelector" not in peer]


def peers_of(policy: Manifest) -> list[Manifest]:
    """The peers of a policy."""
    rules = [*policy.get("ingress", []), *policy.get("egress", [])]
    return [peer for rule in rules for peer in (*rule.get("from", []), *rule.get("to", []))]


def workloads_with(overlay: str, labels: dict[str, str]) -> list[Manifest]:
    """The workloads whose pods have these labels."""
    return [found for found in of_kind(overlay, *WORKLOADS) if labels.items() <= labels_of(found).items()]


def container_ports(workload: Manifest) -> set[int | str]:
    """The ports of a pod by their names and by their numbers."""
    ports = [port for container in pod_of(workload)["containers"] for port in container["ports"]]
    return {port["containerPort"] for port in ports} | {port["name"] for port in ports}


def flows(overlay: str) -> set[tuple[str, str, int | str]]:
    """The connections between workloads that the policies allow: source, target and port of the target."""
    return set(ways(overlay, "ingress")) & set(ways(overlay, "egress"))


def ways(overlay: str, direction: str) -> Iterator[tuple[str, str, int | str]]:
    """What the rules of one direction allow, where they name a peer: source, target and port of the target."""
    for policy in of_kind(overlay, "NetworkPolicy"):
        chosen = [
            one["metadata"]["name"]
            for one in workloads_with(overlay, policy["spec"]["podSelector"].get("matchLabels", {}))
        ]
        for rule in policy["spec"].get(direction, []):
            labels = [peer["podSelector"]["matchLabels"] for peer in own_peers({direction: [rule]})]
            peers = [one["metadata"]["name"] for found in labels for one in workloads_with(overlay, found)]
            pairs = [(peer, one) if direction == "ingress" else (one, peer) for peer in peers for one in chosen]
            yield from ((source, target, port["port"]) for source, target in pairs for port in rule["ports"])
