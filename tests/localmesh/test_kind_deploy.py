"""What is put on top of the overlay, and which images it names."""

import json

from localmesh.kind.deploy import deployments, on_top_of
from localmesh.kind.greeting import address, linked, text
from localmesh.kind.images import named
from localmesh.kind.objects import Service
from localmesh.kind.settings import KindSettings

MANIFESTS = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: pricing
spec:
  template:
    spec:
      containers:
      - image: aiomesh/pricing:dev
        name: server
---
apiVersion: v1
kind: ConfigMap
data:
  note: a Deployment
---
apiVersion: apps/v1
kind: StatefulSet
spec:
  template:
    spec:
      containers:
      - name: postgres
        image: postgres:17
"""


def test_each_of_our_deployments_notes_the_id_of_its_image() -> None:
    top = on_top_of("../overlay", {"pricing": "sha256:1"}, KindSettings(traces_port=16686, edge_port=8080))
    [patch] = json.loads(json.dumps(top["patches"]))
    assert patch["target"] == {"kind": "Deployment", "name": "pricing"}
    template = json.loads(patch["patch"])["spec"]["template"]
    assert template == {"metadata": {"annotations": {"aiomesh/image-id": "sha256:1"}}}
    assert (top["resources"], top["configMapGenerator"]) == (["../overlay"], [])


def test_moved_traces_are_where_the_links_of_the_edge_lead() -> None:
    [settings] = json.loads(json.dumps(on_top_of("x", {}, KindSettings(traces_port=9000))["configMapGenerator"]))
    assert settings["literals"] == ["EDGE_TRACE_URL=http://localhost:9000/trace/{trace_id}"]
    assert (settings["name"], settings["behavior"]) == ("api-edge", "merge")


def test_only_deployments_are_taken_from_a_stream() -> None:
    assert deployments(MANIFESTS) == MANIFESTS.partition("---\n")[0]
    assert deployments(MANIFESTS + "---\n" + MANIFESTS).count("kind: Deployment\n") == 2


def test_the_images_of_containers_are_found_wherever_they_stand() -> None:
    assert named(MANIFESTS) == {"aiomesh/pricing:dev", "postgres:17"}


def test_addresses_are_those_on_this_machine_where_there_are_some() -> None:
    settings = KindSettings(edge_port=8090, traces_port=9000)
    jaeger = Service.model_validate(
        {"metadata": {"name": "jaeger"}, "spec": {"ports": [{"port": 4317}, {"port": 16686, "nodePort": 30686}]}}
    )
    pricing = Service.model_validate({"metadata": {"name": "pricing"}, "spec": {"ports": [{"port": 50052}]}})
    assert address(jaeger, settings) == "http://127.0.0.1:9000"
    assert address(pricing, settings) == "pricing.aiomesh:50052"


def test_the_link_to_a_trace_is_found_among_others() -> None:
    assert linked('</v1>; rel="next", <http://localhost/trace/abc>; rel="trace"') == "http://localhost/trace/abc"
    assert linked('</v1>; rel="next"') is None


def test_the_greeting_holds_the_link_and_three_commands() -> None:
    greeting = text("http://127.0.0.1:8080", "http://127.0.0.1:9000", "http://localhost:9000/trace/abc")
    assert "http://localhost:9000/trace/abc" in greeting
    assert greeting.count("curl ") == 3
    assert "make kind-down" in greeting
