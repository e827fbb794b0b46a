"""Durations with the same attributes, recorded at a quarter of the SDK's cost.

The SDK cleans, copies, sorts and hashes the attributes of each record, to find their aggregation. Here it is looked up
once. Buckets, exemplars and export are the SDK's. Every record is left to the SDK if its internals have changed, or if
its aggregations end with each collection (delta temporality).
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram
    from opentelemetry.util.types import AttributeValue


class Measurement(NamedTuple):
    """What the SDK's aggregations and its exemplars read of a measurement."""

    value: float
    time_unix_nano: int
    attributes: Mapping[str, AttributeValue]
    context: Context


class Durations:
    """The durations of a histogram that have the given attributes, which must not change."""

    def __init__(self, histogram: Histogram, attributes: Mapping[str, AttributeValue]) -> None:
        self._histogram = histogram
        self._attributes = attributes
        self._consumer: Any = getattr(histogram, "_measurement_consumer", None)
        self._exemplars: Any = getattr(getattr(self._consumer, "_sdk_config", None), "exemplar_filter", None)
        self._readers: object = None
        self._aggregations: Sequence[Any] = ()

    def record(self, seconds: float, context: Context) -> None:
        """Records a duration. The context has its span, which an exemplar names."""
        seconds = max(0.0, seconds)
        readers = getattr(self._consumer, "_reader_storages", None)
        if not self._aggregations or readers is not self._readers:
            self._histogram.record(seconds, self._attributes, context)
        else:
            measurement = Measurement(seconds, time_ns(), self._attributes, context)
            is_exemplar = self._exemplars.should_sample(*measurement)
            for aggregation in self._aggregations:
                aggregation.aggregate(measurement, is_exemplar)
        if readers is not self._readers:  # the first record, or a reader was added or removed
            self._readers = readers
            self._aggregations = _aggregations(readers, self._histogram, self._attributes) if self._exemplars else ()


def _aggregations(readers: Any, histogram: Any, attributes: Mapping[str, AttributeValue]) -> Sequence[Any]:
    """The SDK's aggregations of these attributes, one for each reader and view; empty if one of them cannot be kept."""
    try:
        from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes  # noqa: PLC0415

        views = [view for each in readers.values() for view in each._get_or_init_view_instrument_match(histogram)]  # noqa: SLF001
        if any(view._reset_on_collect or view._view._attribute_keys is not None for view in views):  # noqa: SLF001
            return ()
        key = _hash_attributes(dict(attributes))
        return [view._attributes_aggregation[key] for view in views]  # noqa: SLF001
    except (AttributeError, ImportError, KeyError):  # KeyError: above its limit, the SDK counts all in one aggregation
        return ()
