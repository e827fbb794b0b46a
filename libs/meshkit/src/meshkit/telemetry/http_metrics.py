"""Measures HTTP requests: the duration of each, and the number of active ones.

https://opentelemetry.io/docs/specs/semconv/http/http-metrics/. A request costs one record in a histogram. Plain
integers count the active requests, and a scrape reads them.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from meshkit.telemetry import semconv
from meshkit.telemetry.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter
    from opentelemetry.util.types import AttributeValue


BUCKETS = tuple(map(float, semconv.DURATION_BUCKETS))
"""As FastAPI has them: Prometheus' name of a bucket, such as `1.0`, is its boundary as text."""

CACHED_ATTRIBUTES = 1024
"""The number of sets of attributes whose `Durations` are kept."""


class HttpMetrics:
    """The metrics of all requests to a process. Create one per meter, as `rpc_metrics.CallMetrics` explains."""

    def __init__(self, meter: Meter) -> None:
        self._active: Counter[tuple[str, str]] = Counter()
        histogram = meter.create_histogram(
            semconv.HTTP_SERVER_REQUEST_DURATION,
            unit="s",
            description="Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._durations = lru_cache(CACHED_ATTRIBUTES)(lambda items: Durations(histogram, dict(items)))
        meter.create_observable_up_down_counter(
            semconv.HTTP_SERVER_ACTIVE_REQUESTS,
            [self._observe],
            unit="{request}",
            description="Number of active HTTP server requests.",
        )

    def begin(self, method: str, scheme: str) -> None:
        """Counts a new request."""
        self._active[method, scheme] += 1

    def end(
        self, method: str, scheme: str, seconds: float, attributes: Mapping[str, AttributeValue], context: Context
    ) -> None:
        """Records the end of a request. The context has its span, which an exemplar names."""
        self._active[method, scheme] -= 1
        self._durations(tuple(attributes.items())).record(seconds, context)

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(count, {semconv.HTTP_REQUEST_METHOD: method, semconv.URL_SCHEME: scheme})
            for (method, scheme), count in list(self._active.items())
        ]
