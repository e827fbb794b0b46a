"""The page of metrics that Prometheus reads: `pip install 'meshkit[prometheus]'`."""

from __future__ import annotations

import logging

from meshkit.extras import require

require("prometheus")

# isort: split
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, start_http_server

log = logging.getLogger("meshkit.metrics")


class MetricsPage:
    """`/metrics` in Prometheus' text format.

    Attributes:
        reader: the metric reader, for the meter provider.
        media_type: the media type of the text.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(registry=self._registry, scope_info_enabled=False)

    def text(self) -> bytes:
        """The current metrics of the process."""
        return generate_latest(self._registry)

    def serve(self, listen: str) -> None:
        """Serves the page at `host:port`, in a thread that ends with the process. Port 0 takes a free port.

        Raises:
            OSError: the address cannot be bound.
        """
        host, _, port = listen.rpartition(":")
        server, _ = start_http_server(int(port), host.strip("[]"), self._registry)
        log.info("metrics on http://%s:%s/metrics", host, server.server_port, extra={"port": server.server_port})
