"""Reads images and addresses from manifests and from kubectl's output, and prints the greeting."""

from __future__ import annotations

import pytest

from localmesh.kind.greeting import addresses, text, trace_link
from localmesh.kind.images import image_of, images
from localmesh.kind.programs import NAMESPACE, CannotGoOn
from localmesh.kind.settings import KindSettings

MANIFESTS = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: tax
spec:
  template:
    spec:
      containers:
      - image: aiomesh/tax:dev
        name: server
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


def test_the_images_of_all_containers_are_found() -> None:
    assert images(MANIFESTS) == {"aiomesh/tax:dev", "postgres:17"}


def test_the_image_of_a_workload_is_found_by_its_whole_name() -> None:
    assert image_of("tax", {"postgres:17", "aiomesh/tax-two:dev", "aiomesh/tax:dev"}) == "aiomesh/tax:dev"


def test_a_workload_without_an_image_in_the_overlay_is_an_error() -> None:
    with pytest.raises(CannotGoOn, match="deploy/k8s/overlays/kind has no container with an image aiomesh/tax:TAG"):
        image_of("tax", {"aiomesh/stock:dev"})


def test_an_address_on_this_machine_is_preferred() -> None:
    settings = KindSettings(edge_port=8090, traces_port=9000)
    assert addresses(["jaeger 4317: 16686:30686", "tax 50052:", "api-edge 80:30080"], settings) == {
        "jaeger": "http://127.0.0.1:9000",
        "tax": f"tax.{NAMESPACE}:50052",
        "api-edge": "http://127.0.0.1:8090",
    }


def test_the_link_to_a_trace_is_found_among_other_links() -> None:
    assert trace_link('</v1>; rel="next", <http://localhost/trace/abc>; rel="trace"') == "http://localhost/trace/abc"
    assert trace_link('</v1>; rel="next"') is None


def test_the_greeting_contains_the_link_and_three_commands() -> None:
    greeting = text(
        "http://127.0.0.1:8080", "http://127.0.0.1:9000", "http://localhost:9000/trace/abc", "127.0.0.1:50050"
    )
    assert "http://localhost:9000/trace/abc" in greeting
    assert "gRPC     127.0.0.1:50050" in greeting
    assert (greeting.count("\ncurl "), greeting.count("echo ")) == (2, 1)
    assert "make kind-down" in greeting
