"""tracebox's store: what it takes, what it refuses, and that it stays within its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.tracebox.spans import T0, event, export, span
from tracebox.search import Search, find_traces
from tracebox.store import TraceStore

pytestmark = pytest.mark.unit

PLENTY = 1 << 30


def a_store(max_spans: int = PLENTY, max_bytes: int = PLENTY) -> TraceStore:
    return TraceStore(max_spans, max_bytes)


def held(store: TraceStore) -> list[int]:
    return [int.from_bytes(trace.trace_id, "big") for trace in store.newest_first()]


def found(store: TraceStore, search: Search) -> list[int]:
    return [int.from_bytes(trace.trace_id, "big") for trace in find_traces(store, search)]


def test_spans_of_one_trace_come_together_whatever_export_brought_them() -> None:
    store = a_store()
    store.add(export(span(1, 1, "first"), span(2, 2)))
    store.add(export(span(1, 3, "second"), service="other"))
    trace = store.trace((1).to_bytes(16, "big"))
    assert trace is not None
    assert [(s.origin.service, s.name) for s in trace.spans] == [("shop", "first"), ("other", "second")]


def test_traces_come_newest_arrival_first() -> None:
    store = a_store()
    for number in (3, 1, 2, 3):
        store.add(export(span(number, 10 * store.spans + 1)))
    assert held(store) == [2, 1, 3]


def test_a_span_sent_twice_is_held_once() -> None:
    store = a_store()
    for _ in range(2):
        assert store.add(export(span(1, 1))).spans == 0
    assert store.spans == 1


def test_when_full_of_spans_the_trace_that_arrived_first_leaves_whole() -> None:
    store = a_store(max_spans=4)
    store.add(export(span(1, 1), span(1, 2)))
    store.add(export(span(2, 3), span(2, 4)))
    store.add(export(span(3, 5)))
    assert held(store) == [3, 2]
    assert store.spans == 3


def test_when_full_of_bytes_the_trace_that_arrived_first_leaves_whole() -> None:
    one = a_store()
    one.add(export(span(1, 1, tags={"text": "x" * 1000})))
    store = a_store(max_bytes=one.bytes * 2)
    for number in (1, 2, 3):
        store.add(export(span(number, number, tags={"text": "x" * 1000})))
    assert held(store) == [3, 2]
    assert store.bytes == one.bytes * 2


def test_a_trace_that_still_grows_outlives_younger_ones_but_not_its_own_bound() -> None:
    store = a_store(max_spans=3)
    store.add(export(span(1, 1)))
    store.add(export(span(2, 2), span(2, 3)))
    store.add(export(span(1, 4)))
    assert held(store) == [1]
    rejected = store.add(export(span(1, 5), span(1, 6), span(1, 7)))
    assert rejected.spans == 2
    assert list(rejected.reasons) == ["the trace alone would fill the store"]
    assert store.spans == 3


def test_one_span_larger_than_the_store_is_refused_and_evicts_nothing() -> None:
    store = a_store(max_bytes=2000)
    store.add(export(span(1, 1)))
    assert store.add(export(span(2, 2, tags={"text": "x" * 3000}))).spans == 1
    assert held(store) == [1]


def test_services_and_operations_leave_with_their_last_span() -> None:
    store = a_store(max_spans=2)
    store.add(export(span(1, 1, "old"), service="first"))
    store.add(export(span(2, 2, "a"), span(2, 3, "b"), service="second"))
    assert store.services() == ["second"]
    assert store.operations("second") == ["a", "b"]
    assert store.operations("first") == []


def test_spans_without_valid_ids_are_counted_and_named_and_the_others_are_kept() -> None:
    bad = [
        Span(trace_id=b"short", span_id=bytes([1] * 8)),
        Span(trace_id=bytes(16), span_id=bytes([1] * 8)),
        Span(trace_id=bytes([1] * 16), span_id=b""),
        Span(trace_id=bytes([1] * 16), span_id=bytes([1] * 8), parent_span_id=b"odd"),
    ]
    store = a_store()
    rejected = store.add(export(*bad, span(7, 1)))
    assert rejected.spans == 4
    assert [reason.split(" must ")[0] for reason in rejected.reasons] == [
        "a trace id",
        "a span id",
        "a parent span id",
    ]
    assert held(store) == [7]


def test_a_search_wants_one_span_that_satisfies_everything_at_once() -> None:
    store = a_store()
    store.add(export(span(1, 1, "slow", at=(0, 50)), span(1, 2, "quick", at=(0, 5)), service="a"))
    assert found(store, Search(service="a", operation="slow", duration_min=40_000_000)) == [1]
    assert found(store, Search(service="a", operation="quick", duration_min=40_000_000)) == []
    assert found(store, Search(service="b")) == []


def test_a_search_counts_both_ends_of_its_window() -> None:
    store = a_store()
    store.add(export(span(1, 1, at=(0, 5))))
    start = T0 * 1_000_000_000
    assert found(store, Search(start_min=start, start_max=start)) == [1]
    assert found(store, Search(start_min=start + 1)) == []
    assert found(store, Search(start_max=start - 1)) == []


def test_a_search_compares_tags_as_text_with_span_event_scope_and_resource() -> None:
    store = a_store()
    work = span(1, 1, tags={"n": 3, "on": True, "zones": ["a", 1]}, events=[event("row", 0, rows=7)])
    store.add(export(work, region="north"))
    for tags in ({"n": "3"}, {"on": "true"}, {"zones": '["a",1]'}, {"rows": "7"}, {"region": "north"}):
        assert found(store, Search(tags=tags)) == [1], tags
    for tags in ({"n": "33"}, {"event": "row"}, {"n": "3", "rows": "8"}, {"otel.scope.name": "tests"}, {"\ud800": "x"}):
        assert found(store, Search(tags=tags)) == [], tags


def test_a_search_for_errors_and_kinds_looks_at_status_and_kind() -> None:
    store = a_store()
    store.add(export(span(1, 1, error="broken", kind=Span.SPAN_KIND_CLIENT), span(2, 2)))
    assert found(store, Search(tags={"error": "true"})) == [1]
    assert found(store, Search(tags={"error": "perhaps"})) == []
    assert found(store, Search(tags={"span.kind": "client"})) == [1]


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 400)), max_size=60),
    st.integers(1, 12),
    st.integers(200, 3000),
)
def test_whatever_arrives_the_bounds_hold_and_the_counts_are_true(
    arrivals: list[tuple[int, int]], max_spans: int, max_bytes: int
) -> None:
    store = TraceStore(max_spans, max_bytes)
    for number, (trace, size) in enumerate(arrivals, start=1):
        store.add(export(span(trace, number, tags={"text": "x" * size})))
        traces = list(store.newest_first())
        assert store.spans == sum(len(t.spans) for t in traces) <= max_spans
        encoded = sum(len(s.encoded) for t in traces for s in t.spans)
        assert encoded <= store.bytes <= max_bytes
        assert bool(store.services()) == bool(traces)
