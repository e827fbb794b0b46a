"""Records durations with the same attributes at a tenth of the SDK's cost: what it aggregates for them is found once.

For each record the SDK cleans, copies, sorts and hashes the attributes. Buckets, exemplars and export are the SDK's. If
it does not look as expected, or its aggregations end with each collection (delta temporality), every record is the
SDK's own.
"""

from __future__ import annotations

from contextlib import suppress
from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
    """The records of a histogram with some attributes, which may not change."""

    def __init__(self, histogram: Histogram, attributes: Mapping[str, AttributeValue]) -> None:
        self._histogram: Any = histogram
        self._attributes = attributes
        self._consumer: Any = None
        self._readers: object = None
        self._aggregations: list[Any] = []

    def record(self, seconds: float, context: Context) -> None:
        """Records a duration. The context has its span, which an exemplar names."""
        seconds = max(0.0, seconds)
        if not self._aggregations or self._consumer._reader_storages is not self._readers:  # noqa: SLF001
            self._histogram.record(seconds, self._attributes, context)
            self._find_aggregations()
            return
        measurement = Measurement(seconds, time_ns(), self._attributes, context)
        is_exemplar = self._consumer._sdk_config.exemplar_filter.should_sample(*measurement)  # noqa: SLF001
        for aggregation in self._aggregations:
            aggregation.aggregate(measurement, is_exemplar)

    def _find_aggregations(self) -> None:
        with suppress(AttributeError, ImportError, LookupError):
            self._consumer = self._histogram._measurement_consumer  # noqa: SLF001
            self._readers = self._consumer._reader_storages  # noqa: SLF001
            self._aggregations = [*_aggregations(self._consumer, self._histogram, self._attributes)]


def _aggregations(consumer: Any, histogram: Any, attributes: Mapping[str, AttributeValue]) -> Iterator[Any]:
    """Those of each reader and view. LookupError if one does not stay or, with too many sets of attributes, is none."""
    from opentelemetry.sdk.metrics._internal import _view_instrument_match as sdk  # noqa: PLC0415 - may be renamed

    for storage in consumer._reader_storages.values():  # noqa: SLF001
        for match in storage._get_or_init_view_instrument_match(histogram):  # noqa: SLF001
            if match._reset_on_collect or match._view._attribute_keys is not None:  # noqa: SLF001
                raise LookupError
            yield match._attributes_aggregation[sdk._hash_attributes(dict(attributes))]  # noqa: SLF001
