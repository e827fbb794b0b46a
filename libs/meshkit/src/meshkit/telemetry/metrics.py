"""Where the metrics of a process go: Prometheus reads them from a page, an OTLP endpoint is sent them.

Exemplars, which name a trace behind a measurement, travel by OTLP alone: Prometheus' text format has none, and its
exporter does not write the format that has.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, start_http_server

from meshkit.telemetry.export import take_failures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

log = logging.getLogger("meshkit.metrics")


class MetricsPage:
    """`/metrics` in Prometheus' text format.

    Attributes:
        reader: reads the metrics that the page shows, for the meter provider.
        media_type: of the text.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(registry=self._registry, scope_info_enabled=False)

    def text(self) -> bytes:
        """What the process has measured so far."""
        return generate_latest(self._registry)

    def serve(self, listen: str) -> None:
        """Serves the page at `host:port`, by a thread that ends with the process; port 0 takes a free one.

        Raises:
            OSError: it cannot be bound.
        """
        host, _, port = listen.rpartition(":")
        server, _ = start_http_server(int(port), host.strip("[]"), self._registry)
        log.info("metrics on http://%s:%s/metrics", host, server.server_port, extra={"port": server.server_port})


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
