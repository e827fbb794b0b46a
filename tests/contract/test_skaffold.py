"""skaffold.yaml agrees with the Dockerfile, the overlays and the ports; these tests do not run Skaffold."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from localmesh.kind.settings import EDGE_GRPC_PORT, EDGE_PORT, TRACES_PORT
from localmesh.services import read_services
from tests.repository import ROOT

Config = dict[str, Any]

MANIFESTS = ROOT / "deploy" / "k8s"
SKAFFOLD: Config = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
PROFILES: dict[str, Config] = {one["name"]: one for one in SKAFFOLD["profiles"]}
IMAGES = {artifact["image"]: artifact["docker"] for artifact in SKAFFOLD["build"]["artifacts"]}

each_overlay = pytest.mark.parametrize(
    ("config", "overlay"), [(SKAFFOLD, "dev"), (PROFILES["production"], "production")], ids=["dev", "production"]
)


def kustomization(overlay: str) -> Config:
    found: Config = yaml.safe_load((MANIFESTS / "overlays" / overlay / "kustomization.yaml").read_text())
    return found


def service_ports(name: str) -> set[str]:
    """The names of the ports of a Service, without patches."""
    texts = [path.read_text() for folder in ("base", "components") for path in (MANIFESTS / folder).rglob("*.yaml")]
    found = [one for text in texts for one in yaml.safe_load_all(text) if one.get("kind") == "Service"]
    [service] = [one for one in found if one["metadata"]["name"] == name]
    return {port["name"] for port in service["spec"]["ports"]}


def labelled(config: Config) -> dict[str, list[str]]:
    """The labels that Skaffold may add, by the kind of object."""
    return {one["groupKind"]: one["labels"] for one in config["resourceSelector"]["allow"]}


def test_the_image_of_every_service_has_the_name_of_its_workload() -> None:
    """Its label `title` is the same."""
    services = {f"aiomesh/{service.workload}": service.name for service in read_services()}
    assert services.keys() == IMAGES.keys()
    for image, name in services.items():
        assert IMAGES[image] == {"dockerfile": "services/Dockerfile", "buildArgs": {"SERVICE": name}}


@each_overlay
def test_the_overlay_runs_exactly_the_images_that_are_built(config: Config, overlay: str) -> None:
    assert config["manifests"] == {"kustomize": {"paths": [f"deploy/k8s/overlays/{overlay}"]}}
    assert {image["name"] for image in kustomization(overlay)["images"]} == IMAGES.keys()


def test_only_the_production_profile_pushes_images() -> None:
    """A profile replaces the whole builder, which needs BuildKit for the mounts of our Dockerfiles."""
    assert SKAFFOLD["build"]["local"] == {"push": False, "useBuildkit": True}
    assert PROFILES["production"]["build"]["local"] == {"push": True, "useBuildkit": True}
    assert [name for name, one in PROFILES.items() if "build" in one] == ["production"]


@each_overlay
def test_forwarded_ports_belong_to_services_in_the_namespace_of_the_overlay(config: Config, overlay: str) -> None:
    for forward in config["portForward"]:
        assert (forward["resourceType"], forward["namespace"]) == ("service", kustomization(overlay)["namespace"])
        assert forward["port"] in service_ports(forward["resourceName"])


def test_dev_can_run_in_parallel_to_kind_and_its_trace_links_use_its_own_jaeger() -> None:
    forwarded = {one["resourceName"]: one["localPort"] for one in SKAFFOLD["portForward"]}
    assert not {EDGE_PORT, EDGE_GRPC_PORT, TRACES_PORT} & set(forwarded.values())
    assert kustomization("dev")["namespace"] != kustomization("kind")["namespace"]
    [settings] = kustomization("dev")["configMapGenerator"]
    [port] = re.findall(r"EDGE_TRACE_URL=http://localhost:(\d+)/", *settings["literals"])
    assert int(port) == forwarded["jaeger"]


def test_pod_templates_do_not_contain_the_id_of_a_skaffold_run() -> None:
    assert labelled(SKAFFOLD) == {"Deployment.apps": [".metadata.labels"], "StatefulSet.apps": [".metadata.labels"]}
    assert labelled(PROFILES["watching"])["StatefulSet.apps"] == [".metadata.labels"]
    assert PROFILES["watching"]["activation"] == [{"command": "dev"}]
