"""Durations are recorded as the SDK records them, whatever readers and temporality the provider has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from meshkit.telemetry.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ATTRIBUTES: dict[str, Any] = {"method": "GET", "status": 200, "ok": True}
SECONDS = [0.001, 0.02, -0.5, 3.0, 0.02, 99.0]
SPANS = [SpanContext(7, number, is_remote=False, trace_flags=TraceFlags(number % 2)) for number in range(1, 7)]
CONTEXTS = [set_span_in_context(NonRecordingSpan(span), Context()) for span in SPANS]

pytestmark = pytest.mark.unit


def reader(temporality: AggregationTemporality = AggregationTemporality.CUMULATIVE) -> InMemoryMetricReader:
    return InMemoryMetricReader({Histogram: temporality})


def provider_of(*readers: InMemoryMetricReader) -> MeterProvider:
    return MeterProvider(readers, shutdown_on_exit=False)


def points(source: InMemoryMetricReader) -> Sequence[Any]:
    """The collected points of the histogram, without the times."""
    data = source.get_metrics_data()
    found = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points if data else []
    return [
        replace(
            point,
            start_time_unix_nano=0,
            time_unix_nano=0,
            exemplars=[replace(each, time_unix_nano=0) for each in point.exemplars],
        )
        for point in found
    ]


def by_the_sdk(histogram: Any) -> Callable[[float, Context], None]:
    return lambda seconds, context: histogram.record(max(0.0, seconds), ATTRIBUTES, context)


def by_durations(histogram: Any) -> Callable[[float, Context], None]:
    return Durations(histogram, ATTRIBUTES).record


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def test_two_collections_have_the_points_and_exemplars_of_the_sdk(temporality: AggregationTemporality) -> None:
    collected = []
    for way in (by_the_sdk, by_durations):
        source = reader(temporality)
        record = way(provider_of(source).get_meter("m").create_histogram("h"))
        halves = []
        for part in (slice(0, 3), slice(3, 6)):
            for seconds, context in zip(SECONDS[part], CONTEXTS[part], strict=True):
                record(seconds, context)
            halves.append(points(source))
        collected.append(halves)
    assert collected[0] == collected[1]
    assert [point.count for half in collected[1] for point in half] in ([3, 6], [3, 3])
    assert collected[1][1][0].exemplars


@pytest.mark.parametrize(
    ("temporality", "records"), [(AggregationTemporality.CUMULATIVE, 1), (AggregationTemporality.DELTA, 3)]
)
def test_the_sdk_records_only_the_first_unless_its_aggregations_end(
    temporality: AggregationTemporality, records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    histogram: Any = provider_of(reader(temporality)).get_meter("m").create_histogram("h")
    by_sdk: list[float] = []
    record_by_sdk = histogram.record

    def count(seconds: float, *arguments: Any) -> None:
        by_sdk.append(seconds)
        record_by_sdk(seconds, *arguments)

    monkeypatch.setattr(histogram, "record", count)
    record = by_durations(histogram)
    for _ in range(3):
        record(1.0, Context())
    assert len(by_sdk) == records


def test_every_reader_and_one_that_is_added_later_get_the_records() -> None:
    first, second, later = reader(), reader(), reader()
    provider = provider_of(first, second)
    record = by_durations(provider.get_meter("m").create_histogram("h"))
    for _ in range(3):
        record(1.0, Context())
    provider.add_metric_reader(later)
    for _ in range(2):
        record(1.0, Context())
    assert [points(each)[0].count for each in (first, second, later)] == [5, 5, 2]


def test_a_set_of_attributes_beyond_the_limit_of_the_sdk_is_counted_with_the_others() -> None:
    source = reader()
    histogram = provider_of(source).get_meter("m").create_histogram("h")
    for number in range(2000):
        histogram.record(1.0, {"number": number})
    record = by_durations(histogram)
    for _ in range(3):
        record(1.0, Context())
    assert {point.attributes.get("otel.metric.overflow"): point.count for point in points(source)} == {None: 1, True: 3}


def test_without_the_sdk_nothing_happens() -> None:
    record = by_durations(NoOpMeter("m").create_histogram("h"))
    for _ in range(2):
        record(1.0, Context())
