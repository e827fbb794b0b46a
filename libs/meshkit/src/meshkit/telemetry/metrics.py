"""Exports the metrics of a process to an OTLP endpoint, and to the page that Prometheus reads (`prometheus.py`).

Only OTLP has exemplars, which name the trace of a measurement. Prometheus' text format has none, and OpenTelemetry's
exporter for Prometheus does not write the format that has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from meshkit.telemetry.endpoints import exporter_options
from meshkit.telemetry.export import filter_failures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource


def meter_provider(readers: Sequence[MetricReader], resource: Resource, *, export: bool) -> MeterProvider:
    """The provider of the meters. Only an OTLP exporter uses exemplars, so without one they are off."""
    return MeterProvider(
        [*readers, _otlp_reader()] if export else readers,
        resource,
        exemplar_filter=None if export else AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
    )


def _otlp_reader() -> MetricReader:
    from meshkit.telemetry.otlp import MetricExporter  # noqa: PLC0415 - costs 50 ms

    filter_failures()
    return PeriodicExportingMetricReader(MetricExporter(**exporter_options("METRICS")))
