"""The properties of the Kubernetes manifests that can be tested without a cluster."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from importlib import import_module
from typing import TYPE_CHECKING

import kubernetes_validate  # type: ignore[import-untyped] # it has no types
import pytest

from localmesh.kind import programs
from meshkit.server.health import LIVENESS
from meshkit.telemetry.export import FLUSH_SECONDS
from tests.contract.manifests import (
    BACKENDS,
    NAMESPACES,
    OWNERS,
    SERVICES,
    WORKLOADS,
    build_overlay,
    config_map,
    container_ports,
    each,
    each_overlay,
    flows,
    load_settings,
    named,
    of_kind,
    own_peers,
    peers_of,
    pod_of,
    selectors,
    server_of,
    settings_of,
    workloads_with,
)
from tests.contract.test_pin_images import builds, pushed
from tools.pin_images import pin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localmesh.services import Service
    from tests.contract.manifests import Manifest

SELECT_ALL_OR_NONE = {"NetworkPolicy deny-all-but-names", "NetworkPolicy gateway"}

POOL = 11
"""The connections of one backend process: 5 to read, 5 to write."""


@each_overlay
@pytest.mark.parametrize("version", ["1.32", kubernetes_validate.latest_version()])
def test_every_object_is_valid_for_kubernetes(overlay: str, version: str) -> None:
    for found in build_overlay(overlay):
        kubernetes_validate.validate(found, version, strict=True)


@each_overlay
def test_an_unknown_field_is_rejected(overlay: str) -> None:
    deployment = named(overlay, "Deployment", SERVICES[0].workload)
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.32", strict=True)


@each_overlay
def test_every_selector_matches_pods_and_only_policies_match_several_workloads(overlay: str) -> None:
    found = list(selectors(overlay))
    assert found
    for who, labels in found:
        if who not in SELECT_ALL_OR_NONE:
            assert workloads_with(overlay, labels), f"{who} selects by {labels}"
        if not who.startswith("NetworkPolicy"):
            assert len(workloads_with(overlay, labels)) == 1, f"{who} selects by {labels}"


@each_overlay
def test_the_ports_of_services_exist_in_their_pods(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        [workload] = workloads_with(overlay, service["spec"]["selector"])
        ports = {port["name"] for container in pod_of(workload)["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        assert all("appProtocol" in port for port in service["spec"]["ports"])


@each_overlay
def test_the_ports_of_probes_exist_in_their_containers(overlay: str) -> None:
    for workload in of_kind(overlay, *WORKLOADS):
        for container in pod_of(workload)["containers"]:
            ports = {port["name"] for port in container["ports"]}
            assert {"readinessProbe", "livenessProbe"} <= container.keys()
            assert set(_probed_ports(container)) <= ports


def _probed_ports(container: Manifest) -> Iterator[str]:
    for probe in (container.get(name, {}) for name in ("startupProbe", "readinessProbe", "livenessProbe")):
        yield from (how["port"] for kind, how in probe.items() if kind in {"httpGet", "tcpSocket"})


@each_overlay
def test_the_ports_of_network_policies_exist_in_their_pods(overlay: str) -> None:
    for policy in of_kind(overlay, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for workload in workloads_with(overlay, policy["spec"]["podSelector"]["matchLabels"]):
                assert {port["port"] for port in rule["ports"]} <= container_ports(workload)
        for rule in policy["spec"].get("egress", []):
            for peer in own_peers({"egress": [rule]}):
                for workload in workloads_with(overlay, peer["podSelector"]["matchLabels"]):
                    assert {port["port"] for port in rule["ports"]} <= container_ports(workload)


@pytest.mark.parametrize("overlay", ["kind", "production"])
def test_policies_allow_only_calls_of_the_edge_queries_of_an_owner_and_traces(overlay: str) -> None:
    workloads = {service.name: service.workload for service in SERVICES}
    calls = {(one.workload, workloads[name], "grpc") for one in SERVICES for name in one.after}
    queries = {(one.workload, "postgres", 5432) for one in OWNERS}
    traces = {(one.workload, "jaeger", 4317) for one in SERVICES}
    assert calls | queries | traces <= flows(overlay)
    edges = {one.workload for one in SERVICES if one not in BACKENDS}
    may_call = {(edge, backend.workload, "grpc") for edge in edges for backend in BACKENDS}
    assert flows(overlay) == may_call | queries | traces


@each_overlay
@each(SERVICES)
def test_every_key_of_a_config_map_is_a_setting_with_a_valid_value(overlay: str, service: Service) -> None:
    prefix, fields = settings_of(service).model_config["env_prefix"], settings_of(service).model_fields
    assert config_map(overlay, service).keys() <= {f"{prefix}{field}".upper() for field in fields}
    assert load_settings(overlay, service)


@each_overlay
@each(SERVICES)
def test_a_service_has_the_addresses_of_the_services_it_calls(overlay: str, service: Service) -> None:
    for called in (one for one in SERVICES if one.name in service.after):
        target = getattr(load_settings(overlay, service), f"{called.name}_target")
        assert target == f"dns:///{called.workload}:{called.port}"
        [port] = named(overlay, "Service", called.workload)["spec"]["ports"]
        assert port["port"] == called.port


@each_overlay
@each(OWNERS)
def test_a_service_has_its_own_database_and_role(overlay: str, service: Service) -> None:
    assert load_settings(overlay, service).database_url == f"postgresql://{service.name}@postgres:5432/{service.name}"
    [password] = [one for one in server_of(overlay, service)["env"] if one["name"] == "PGPASSWORD"]
    secret = password["valueFrom"]["secretKeyRef"]["name"]
    assert secret.startswith(f"{service.workload}-database")
    assert password_files(overlay)[f"passwords/{service.name}"] == secret


def password_files(overlay: str) -> dict[str, str]:
    """The Secret of each password file of PostgreSQL's pod."""
    [volume] = [one for one in pod_of(named(overlay, "StatefulSet", "postgres"))["volumes"] if one["name"] == "roles"]
    secrets = [source["secret"] for source in volume["projected"]["sources"] if "secret" in source]
    return {item["path"]: secret["name"] for secret in secrets for item in secret["items"]}


@each_overlay
def test_postgresql_has_only_the_roles_of_services_with_a_database(overlay: str) -> None:
    assert password_files(overlay).keys() == {f"passwords/{service.name}" for service in OWNERS}


@each_overlay
@each(SERVICES)
def test_a_service_listens_at_the_port_of_its_container(overlay: str, service: Service) -> None:
    assert settings_of(service).model_fields["listen"].default == f"127.0.0.1:{service.port}"
    ports = {port["name"]: port["containerPort"] for port in server_of(overlay, service)["ports"]}
    assert ports.pop(service.protocol) == service.port
    if service.grpc_port:
        assert load_settings(overlay, service).grpc_listen == f"0.0.0.0:{service.grpc_port}"
        assert ports.pop("grpc") == service.grpc_port
    assert ports == ({"metrics": metrics_port(overlay, service)} if service in BACKENDS else {})


@each_overlay
@each([service for service in SERVICES if service.grpc_port])
def test_an_edge_with_grpc_has_a_headless_service_for_it(overlay: str, service: Service) -> None:
    spec = named(overlay, "Service", f"{service.workload}-grpc")["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    [port] = spec["ports"]
    assert (port["port"], port["targetPort"]) == (service.grpc_port, "grpc")


@pytest.mark.parametrize("overlay", ["kind", "production"])
def test_anyone_may_call_both_protocols_of_an_edge(overlay: str) -> None:
    [rule] = named(overlay, "NetworkPolicy", "edge")["spec"]["ingress"]
    assert rule == {"ports": [{"port": name, "protocol": "TCP"} for name in ("http", "grpc")]}


def metrics_port(overlay: str, service: Service) -> int:
    host, _, port = load_settings(overlay, service).metrics_listen.rpartition(":")
    assert host == "0.0.0.0"
    return int(port)


@each(BACKENDS)
def test_only_the_namespace_of_prometheus_can_read_the_metrics_of_a_backend(service: Service) -> None:
    policy, port = named("production", "NetworkPolicy", "backend"), metrics_port("production", service)
    [rule] = [rule for rule in policy["spec"]["ingress"] if port in {each["port"] for each in rule["ports"]}]
    [peer] = rule["from"]
    assert peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


@each_overlay
@each(BACKENDS)
def test_readiness_checks_the_service_and_liveness_the_process(overlay: str, service: Service) -> None:
    container = server_of(overlay, service)
    assert service.grpc_name in _proto_services(service)
    assert container["readinessProbe"]["grpc"] == {"port": service.port, "service": service.grpc_name}
    assert container["livenessProbe"]["grpc"] == {"port": service.port, "service": LIVENESS}
    assert container["startupProbe"]["grpc"] == {"port": service.port, "service": LIVENESS}


def _proto_services(service: Service) -> set[str]:
    module = import_module(f"aiomesh.{service.name}.v1.{service.name}_service_pb2")
    return {found.full_name for found in module.DESCRIPTOR.services_by_name.values()}


@each_overlay
@each([service for service in SERVICES if service.protocol == "http"])
def test_the_probes_of_an_edge_call_its_routes(overlay: str, service: Service) -> None:
    container = server_of(overlay, service)
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert paths == {"readinessProbe": "/readyz", "livenessProbe": "/livez"}


@each_overlay
@each(SERVICES)
def test_the_grace_period_of_a_pod_covers_its_own_shutdown(overlay: str, service: Service) -> None:
    """Drain, grace and export of the last spans, and 2 s for everything else."""
    settings = load_settings(overlay, service)
    needed = settings.drain_seconds + settings.grace_seconds + FLUSH_SECONDS + 2
    granted = pod_of(named(overlay, "Deployment", service.workload))["terminationGracePeriodSeconds"]
    assert needed <= granted


@pytest.mark.parametrize("overlay", ["kind", "production"])
def test_postgresql_has_connections_for_the_maximum_of_replicas(overlay: str) -> None:
    [container] = pod_of(named(overlay, "StatefulSet", "postgres"))["containers"]
    [allowed] = re.findall(r"max_connections=(\d+)", " ".join(container["args"]))
    most = sum(_most_replicas(overlay, service) + 1 for service in OWNERS)  # one drains
    reserved = 3  # superuser_reserved_connections
    assert most * POOL + reserved <= int(allowed)


def _most_replicas(overlay: str, service: Service) -> int:
    surge = named(overlay, "Deployment", service.workload)["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    return int(named(overlay, "HorizontalPodAutoscaler", service.workload)["spec"]["maxReplicas"]) + int(surge)


@each_overlay
def test_autoscaled_workloads_set_no_replicas(overlay: str) -> None:
    scaled = {found["spec"]["scaleTargetRef"]["name"] for found in of_kind(overlay, "HorizontalPodAutoscaler")}
    assert scaled == (set() if overlay == "dev" else {service.workload for service in SERVICES})
    for name in scaled:
        assert "replicas" not in named(overlay, "Deployment", name)["spec"]


@each_overlay
def test_a_disruption_budget_never_blocks_a_node_drain(overlay: str) -> None:
    """So workloads with one replica have no budget, and pods that are not ready may be evicted."""
    least = {one["metadata"]["name"]: one["spec"].get("replicas", 1) for one in of_kind(overlay, *WORKLOADS)}
    least |= {
        one["metadata"]["name"]: one["spec"]["minReplicas"] for one in of_kind(overlay, "HorizontalPodAutoscaler")
    }
    for budget in of_kind(overlay, "PodDisruptionBudget"):
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert least[budget["metadata"]["name"]] > 1


@pytest.mark.parametrize("overlay", ["kind", "production"])
def test_every_service_has_a_disruption_budget(overlay: str) -> None:
    names = {found["metadata"]["name"] for found in of_kind(overlay, "PodDisruptionBudget")}
    assert names == {service.workload for service in SERVICES}


@each_overlay
def test_images_are_pinned_by_tag_or_digest(overlay: str) -> None:
    for workload in of_kind(overlay, *WORKLOADS):
        for container in pod_of(workload)["containers"]:
            _, _, tag = container["image"].rpartition(":")
            assert re.fullmatch(r"[\w.-]+", tag), container["image"]
            assert tag != "latest"


def test_production_runs_the_images_that_make_pin_images_has_written(copy: Path) -> None:
    references = pin(builds(copy, *(pushed(service.workload) for service in SERVICES)), copy)
    assert all(re.search("@sha256:[0-9a-f]{64}$", reference) for reference in references)
    deployments = [one for one in build_overlay("production", copy) if one["kind"] == "Deployment"]
    running = {pod_of(one)["containers"][0]["image"] for one in deployments}
    assert set(references) < running
    assert not [image for image in running if image.startswith("aiomesh/")]


@each_overlay
def test_containers_have_requests_and_a_memory_limit_but_no_cpu_limit(overlay: str) -> None:
    """A CPU limit pauses the event loop for the rest of each period."""
    for workload in of_kind(overlay, *WORKLOADS):
        for container in pod_of(workload)["containers"]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() == {"memory"}


@each_overlay
def test_pods_have_no_privileges_and_no_token(overlay: str) -> None:
    for workload in of_kind(overlay, *WORKLOADS):
        pod = pod_of(workload)
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@each_overlay
def test_the_namespace_enforces_the_restricted_standard(overlay: str) -> None:
    [namespace] = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }


@each_overlay
def test_every_object_is_in_the_namespace_of_its_overlay(overlay: str) -> None:
    [namespace] = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["name"] == NAMESPACES[overlay]
    others = [found for found in build_overlay(overlay) if found is not namespace]
    assert {found["metadata"]["namespace"] for found in others} == {NAMESPACES[overlay]}


@each_overlay
def test_nothing_in_an_overlay_names_the_namespace_of_another(overlay: str) -> None:
    """Services are called by their short names, which are those of the pod's own namespace."""
    assert not re.findall(r"[\w-]\.aiomesh(?:-\w+)?\b", json.dumps(build_overlay(overlay)))
    peers = [peer for policy in of_kind(overlay, "NetworkPolicy") for peer in peers_of(policy["spec"])]
    selectors = [peer["namespaceSelector"]["matchLabels"] for peer in peers if "namespaceSelector" in peer]
    assert {one["kubernetes.io/metadata.name"] for one in selectors} <= {"kube-system", "monitoring"}


def test_what_uses_the_cluster_of_kind_uses_its_namespace() -> None:
    assert NAMESPACES["kind"] == programs.NAMESPACE


@pytest.mark.parametrize("overlay", ["kind", "dev"])
def test_applying_a_demo_overlay_leaves_the_objects_of_production_alone(overlay: str) -> None:
    def keys(overlay: str) -> set[tuple[str, str, str]]:
        found = [(one["kind"], one["metadata"]) for one in build_overlay(overlay)]
        return {(kind, about.get("namespace", ""), about["name"]) for kind, about in found}

    assert of_kind(overlay, "Secret"), "it has passwords that everyone knows"
    assert not keys(overlay) & keys("production")


@each_overlay
def test_the_roles_are_created_only_in_the_postgresql_of_the_same_pod(overlay: str) -> None:
    [container] = pod_of(named(overlay, "StatefulSet", "postgres"))["containers"]
    [_, _, script] = container["lifecycle"]["postStart"]["exec"]["command"]
    assert not re.findall(r"psql.* (-h|--host|postgres\w*://)", script), (
        "without a host, psql uses the pod's own socket"
    )
    assert not {variable["name"] for variable in container["env"]} & {"PGHOST", "PGHOSTADDR", "PGSERVICE"}


def test_kubectl_reads_the_password_of_a_secret_from_standard_input() -> None:
    """As docs/operations.md creates the Secrets; a dry run needs no cluster."""
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    create = ("create", "secret", "generic", "one", "--from-file=password=/dev/stdin", "--dry-run=client")
    given = """it's "$HOME" \\ %L"""
    done = subprocess.run(
        ("kubectl", *create, "--output=json"), input=given, check=True, capture_output=True, text=True
    )
    assert base64.b64decode(json.loads(done.stdout)["data"]["password"]).decode() == given


def test_production_has_no_passwords_and_no_node_ports() -> None:
    assert not of_kind("production", "Secret")
    assert {found["spec"].get("type", "ClusterIP") for found in of_kind("production", "Service")} == {"ClusterIP"}


@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_only_kind_has_node_ports(overlay: str) -> None:
    def open_ports(overlay: str) -> set[int]:
        services = of_kind(overlay, "Service")
        return {port["nodePort"] for found in services for port in found["spec"]["ports"] if "nodePort" in port}

    assert open_ports("kind") == {30050, 30080, 30686}
    assert not open_ports(overlay)
