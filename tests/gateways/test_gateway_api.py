"""The routes of deploy/k8s/components/gateway-api, by the schemas of the Gateway API; no test runs them.

`gateway_api.json` has the schemas, with their source and licence. They are without the rules that only an API server
checks (`x-kubernetes-validations`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # it has no types
import pytest

from tests.contract.manifests import Manifest, build_overlay, with_components
from tests.repository import ROOT

VENDORED = json.loads(Path(__file__).with_name("gateway_api.json").read_text())
OPENAPI = json.loads((ROOT / "tests" / "contract" / "openapi.json").read_text())
PROBES = {"/livez", "/readyz", "/metrics"}


def closed(schema: Any) -> Any:
    """A schema that rejects unknown fields, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    return found | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else found


def schema_of(kind: str) -> Any:
    """The schema of an object, whose metadata every kind has."""
    schema = closed(VENDORED["schemas"][kind])
    return schema | {"properties": schema["properties"] | {"metadata": {"type": "object"}}}


def routes() -> dict[str, Manifest]:
    """The routes by their kind."""
    return {one["kind"]: one for one in with_components("production", "gateway-api") if one["kind"].endswith("Route")}


@pytest.mark.parametrize("kind", VENDORED["schemas"])
def test_a_route_follows_the_schema_of_its_kind(kind: str) -> None:
    jsonschema.validate(routes()[kind], schema_of(kind))


@pytest.mark.parametrize("kind", VENDORED["schemas"])
@pytest.mark.parametrize(
    "wrong", [{"rule": []}, {"hostnames": ["no host"]}, {"parentRefs": [{"name": ""}]}, {"rules": [{"matches": {}}]}]
)
def test_a_wrong_route_is_rejected(kind: str, wrong: dict[str, object]) -> None:
    route = routes()[kind]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**route, "spec": {**route["spec"], **wrong}}, schema_of(kind))


@pytest.mark.parametrize(("kind", "port"), [("HTTPRoute", "http"), ("GRPCRoute", "grpc")])
def test_a_route_leads_to_a_port_of_the_edge(kind: str, port: str) -> None:
    [rule] = routes()[kind]["spec"]["rules"]
    [backend] = rule["backendRefs"]
    services = [one for one in build_overlay("production") if one["kind"] == "Service"]
    [service] = [one for one in services if one["metadata"]["name"] == backend["name"]]
    assert {one["name"]: one["port"] for one in service["spec"]["ports"]}[port] == backend["port"]
    assert service["spec"].get("clusterIP") != "None", "a controller would also choose pods that are not ready"


def test_the_routes_have_different_host_names() -> None:
    """A listener accepts only one of two routes of different kinds for the same host name."""
    hosts = [host for route in routes().values() for host in route["spec"]["hostnames"]]
    assert len(hosts) == len(set(hosts)) == 2


def test_every_path_of_the_api_is_routed_and_no_probe() -> None:
    [rule] = routes()["HTTPRoute"]["spec"]["rules"]
    prefixes = [one["path"]["value"] for one in rule["matches"]]

    def routed(path: str) -> bool:
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)

    assert {path for path in OPENAPI["paths"] if not routed(path)} <= PROBES
    assert not any(routed(path) for path in PROBES)
