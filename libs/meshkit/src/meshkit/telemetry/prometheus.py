"""The page of metrics that Prometheus reads: `pip install 'meshkit[prometheus]'`."""

from __future__ import annotations

import gzip

from meshkit.extras import require

require("prometheus")

# isort: split
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted


class MetricsPage:
    """`/metrics` in Prometheus' text formats.

    Attributes:
        reader: the metric reader, for the meter provider.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(registry=self._registry, scope_info_enabled=False)

    def render(self, accept: str, accept_encoding: str) -> tuple[dict[str, str], bytes]:
        """The current metrics of the process, in the format and the compression that a request accepts.

        Args:
            accept: the Accept header of the request: OpenMetrics or a version of the text format.
            accept_encoding: its Accept-Encoding header: gzip or nothing.

        Returns:
            The header fields of the response, and its body.
        """
        encode, media_type = choose_encoder(accept)
        headers, body = {"Content-Type": media_type, "Vary": "Accept, Accept-Encoding"}, encode(self._registry)
        if gzip_accepted(accept_encoding):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body)
        return headers, body
