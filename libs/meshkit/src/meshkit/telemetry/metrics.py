"""Where the metrics of a process go: Prometheus reads them from a page (`prometheus.py`), an OTLP endpoint gets them.

Exemplars, which name a trace behind a measurement, travel by OTLP alone: Prometheus' text format has none, and its
exporter does not write the format that has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from meshkit.telemetry.export import take_failures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource


def meter_provider(readers: Sequence[MetricReader], resource: Resource, *, exporting: bool) -> MeterProvider:
    """The provider behind the readers, and behind an OTLP exporter; that alone makes exemplars worth their time."""
    return MeterProvider(
        [*readers, _otlp_reader()] if exporting else readers,
        resource,
        exemplar_filter=None if exporting else AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
    )


def _otlp_reader() -> MetricReader:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415 - costs 50 ms

    take_failures()
    return PeriodicExportingMetricReader(OTLPMetricExporter())
