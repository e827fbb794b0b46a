"""The store of tracebox: the spans that it accepts and rejects, its limits, and searches."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.tracebox.spans import T0, event, export, span
from tracebox.search import Search, find_traces
from tracebox.store import TraceStore

pytestmark = pytest.mark.unit

PLENTY = 1 << 30


def new_store(max_spans: int = PLENTY, max_bytes: int = PLENTY) -> TraceStore:
    return TraceStore(max_spans, max_bytes)


def trace_numbers(store: TraceStore) -> list[int]:
    return [int.from_bytes(trace.trace_id, "big") for trace in store.newest_first()]


def search(store: TraceStore, conditions: Search) -> list[int]:
    return [int.from_bytes(trace.trace_id, "big") for trace in find_traces(store, conditions)]


def test_spans_of_one_trace_from_several_exports_are_combined() -> None:
    store = new_store()
    store.add(export(span(1, 1, "first"), span(2, 2)))
    store.add(export(span(1, 3, "second"), service="other"))
    trace = store.trace((1).to_bytes(16, "big"))
    assert trace is not None
    assert [(s.origin.service, s.name) for s in trace.spans] == [("shop", "first"), ("other", "second")]


def test_the_newest_arrival_is_the_first_trace() -> None:
    store = new_store()
    for number in (3, 1, 2, 3):
        store.add(export(span(number, 10 * store.spans + 1)))
    assert trace_numbers(store) == [2, 1, 3]


def test_a_span_sent_twice_is_stored_once() -> None:
    store = new_store()
    for _ in range(2):
        assert store.add(export(span(1, 1))).spans == 0
    assert store.spans == 1


def test_the_first_trace_is_dropped_when_the_store_has_too_many_spans() -> None:
    store = new_store(max_spans=4)
    store.add(export(span(1, 1), span(1, 2)))
    store.add(export(span(2, 3), span(2, 4)))
    store.add(export(span(3, 5)))
    assert trace_numbers(store) == [3, 2]
    assert store.spans == 3


def test_the_first_trace_is_dropped_when_the_store_has_too_many_bytes() -> None:
    one = new_store()
    one.add(export(span(1, 1, tags={"text": "x" * 1000})))
    store = new_store(max_bytes=one.bytes * 2)
    for number in (1, 2, 3):
        store.add(export(span(number, number, tags={"text": "x" * 1000})))
    assert trace_numbers(store) == [3, 2]
    assert store.bytes == one.bytes * 2


def test_a_growing_trace_replaces_newer_ones_up_to_the_limit_of_the_store() -> None:
    store = new_store(max_spans=3)
    store.add(export(span(1, 1)))
    store.add(export(span(2, 2), span(2, 3)))
    store.add(export(span(1, 4)))
    assert trace_numbers(store) == [1]
    rejected = store.add(export(span(1, 5), span(1, 6), span(1, 7)))
    assert rejected.spans == 2
    assert list(rejected.reasons) == ["the trace alone would fill the store"]
    assert store.spans == 3


def test_a_span_larger_than_the_store_is_rejected_and_evicts_nothing() -> None:
    store = new_store(max_bytes=5000)
    store.add(export(span(1, 1)))
    assert store.add(export(span(2, 2, tags={"text": "x" * 5000}))).spans == 1
    assert trace_numbers(store) == [1]


@pytest.mark.parametrize("length", [0, 10, 5000])
def test_many_traces_services_and_names_need_no_more_memory_than_the_limit(length: int) -> None:
    store = new_store(max_bytes=1_000_000)
    gc.collect()
    tracemalloc.start()
    for number in range(1, 2000):
        store.add(
            export(
                span(number, 1, f"{number}" + "\N{TEACUP WITHOUT HANDLE}" * length), service=f"{number}" + "x" * length
            )
        )
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store) < 1999
    assert used < 1_150_000


def test_services_and_operations_are_dropped_with_their_last_span() -> None:
    store = new_store(max_spans=2)
    store.add(export(span(1, 1, "old"), service="first"))
    store.add(export(span(2, 2, "a"), span(2, 3, "b"), service="second"))
    assert store.services() == ["second"]
    assert store.operations("second") == ["a", "b"]
    assert store.operations("first") == []


def test_spans_without_valid_ids_are_rejected_with_reasons_and_the_others_are_stored() -> None:
    bad = [
        Span(trace_id=b"short", span_id=bytes([1] * 8)),
        Span(trace_id=bytes(16), span_id=bytes([1] * 8)),
        Span(trace_id=bytes([1] * 16), span_id=b""),
        Span(trace_id=bytes([1] * 16), span_id=bytes([1] * 8), parent_span_id=b"odd"),
    ]
    store = new_store()
    rejected = store.add(export(*bad, span(7, 1)))
    assert rejected.spans == 4
    assert [reason.split(" must ")[0] for reason in rejected.reasons] == [
        "a trace id",
        "a span id",
        "a parent span id",
    ]
    assert trace_numbers(store) == [7]


def test_a_search_finds_a_trace_in_which_one_span_satisfies_every_condition() -> None:
    store = new_store()
    store.add(export(span(1, 1, "slow", at=(0, 50)), span(1, 2, "quick", at=(0, 5)), service="a"))
    assert search(store, Search(service="a", operation="slow", duration_min=40_000_000)) == [1]
    assert search(store, Search(service="a", operation="quick", duration_min=40_000_000)) == []
    assert search(store, Search(service="b")) == []


def test_the_window_of_a_search_includes_both_ends() -> None:
    store = new_store()
    store.add(export(span(1, 1, at=(0, 5))))
    start = T0 * 1_000_000_000
    assert search(store, Search(start_min=start, start_max=start)) == [1]
    assert search(store, Search(start_min=start + 1)) == []
    assert search(store, Search(start_max=start - 1)) == []


def test_a_search_compares_tags_as_text_with_the_span_its_events_and_its_resource() -> None:
    store = new_store()
    work = span(1, 1, tags={"n": 3, "on": True, "zones": ["a", 1]}, events=[event("row", 0, rows=7)])
    store.add(export(work, region="north"))
    for tags in ({"n": "3"}, {"on": "true"}, {"zones": '["a",1]'}, {"rows": "7"}, {"region": "north"}):
        assert search(store, Search(tags=tags)) == [1], tags
    for tags in ({"n": "33"}, {"event": "row"}, {"n": "3", "rows": "8"}, {"otel.scope.name": "tests"}, {"\ud800": "x"}):
        assert search(store, Search(tags=tags)) == [], tags


def test_a_search_for_error_and_span_kind_compares_the_status_and_the_kind() -> None:
    store = new_store()
    store.add(export(span(1, 1, error="broken", kind=Span.SPAN_KIND_CLIENT), span(2, 2)))
    assert search(store, Search(tags={"error": "true"})) == [1]
    assert search(store, Search(tags={"error": "perhaps"})) == []
    assert search(store, Search(tags={"span.kind": "client"})) == [1]


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 400)), max_size=60),
    st.integers(1, 12),
    st.integers(200, 30_000),
)
def test_the_limits_and_the_counts_hold_for_any_spans(
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
