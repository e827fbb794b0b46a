"""The same scenarios as on the local mesh, through the node ports; and one trace with the names of its pods."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from localmesh.kind.programs import NAMESPACE
from tests.cluster.cluster_mesh import pods
from tests.e2e.local_mesh import order, trace
from tests.e2e.test_a_day_at_the_shop import (  # noqa: F401 - collected here too
    test_a_mistake_is_a_problem_with_a_trace,
    test_a_page_of_products,
    test_an_order_for_more_than_there_is,
    test_an_order_from_reservation_to_commit,
    test_an_order_is_one_trace_with_its_transactions,
    test_an_unknown_product_is_not_an_error_of_the_edge_and_both_calls_have_a_status,
    test_one_product_in_yen,
    test_the_same_product_over_grpc,
)
from tests.e2e.test_when_things_go_wrong import (  # noqa: F401
    test_frozen_inventory_is_an_error_within_the_budget_and_a_repeat_places_the_order_once,
    test_frozen_pricing_degrades_reads_and_is_used_again_after_it_continues,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.cluster_mesh import ClusterMesh
    from tests.e2e.local_mesh import Span


async def test_every_span_has_the_name_of_its_pod(mesh: ClusterMesh) -> None:
    answer = await order(mesh, str(uuid.uuid4()), {"TEA-0003": 1})

    spans = list(every(await trace(mesh, answer.trace_id, spans=5)))
    assert {span.service for span in spans} == {"api_edge", "inventory", "pricing"}
    for span in spans:
        alive = {(pod.name, pod.uid, pod.node) for pod in pods(span.service.replace("_", "-"))}
        assert (span.resource["k8s.pod.name"], span.resource["k8s.pod.uid"], span.resource["k8s.node.name"]) in alive
        assert span.resource["k8s.namespace.name"] == NAMESPACE


def every(span: Span) -> Iterator[Span]:
    """The span and all below it."""
    yield span
    for child in span.children:
        yield from every(child)
