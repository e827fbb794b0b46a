"""OpenTelemetry's OTLP/gRPC exporters, which here also report what a collector accepted only in part.

A collector may accept a request and reject some of it (partial success); OpenTelemetry's exporters discard that answer.
https://opentelemetry.io/docs/specs/otlp/#partial-success
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import Metric, MetricExportResult, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.trace.export import SpanExportResult

from meshkit.telemetry import encoding

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.telemetry.encoding import EncodedSpans

log = logging.getLogger("meshkit.telemetry")

ENCODER = "opentelemetry.exporter.otlp.proto.common._internal"
"""The logger of OpenTelemetry's encoder, which logs a traceback for each attribute that it omits."""

logging.getLogger(ENCODER).addFilter(lambda record: not str(record.msg).startswith("Failed to encode key"))

MESSAGE_LENGTH = 500
"""The maximum length of a collector's message in the log."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a collector that accepted a request said: how many spans or data points it rejected, and a message."""

    rejected: int = 0
    message: str = ""


class _Stub:
    """A stub that keeps the collector's last answer, which OpenTelemetry's exporters discard."""

    def __init__(self, export: Callable[..., Any]) -> None:
        self._export = export
        self.answer = Answer()

    def Export(self, **arguments: Any) -> None:  # noqa: N802 - the stub's name
        partial = self._export(**arguments).partial_success
        rejected = partial.rejected_data_points if hasattr(partial, "rejected_data_points") else partial.rejected_spans
        self.answer = Answer(rejected, partial.error_message[:MESSAGE_LENGTH])


class SpanExporter(OTLPSpanExporter):
    """Sends spans that are encoded: once, however often they are sent."""

    _channel: Any
    _client: Any

    def send(self, spans: EncodedSpans) -> Answer | None:
        """Sends a request, with retries; returns None if the collector did not accept it."""
        result: SpanExportResult = self._export(spans)  # type: ignore[arg-type] # not the SDK's spans
        return self._client.answer if result is SpanExportResult.SUCCESS else None

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]
        self._client = _Stub(self._channel.unary_unary(encoding.METHOD, response_deserializer=encoding.read_response))

    def _translate_data(self, data: Any) -> Any:
        return data[0]

    def _count_data(self, data: Any) -> int:
        return data[1]  # type: ignore[no-any-return]


class MetricExporter(OTLPMetricExporter):
    """Exports metrics, without those that cannot be encoded, and logs once that a collector rejects some."""

    _client: Any
    _warned = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        """Exports the metrics."""
        result = super().export(metrics_data, timeout_millis, **kwargs)
        answer = self._client.answer
        if result is MetricExportResult.SUCCESS and answer.rejected and not self._warned:
            self._warned = True
            log.warning("the collector rejected %d data points of metrics: %s", answer.rejected, answer.message)
        return result

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]
        self._client = _Stub(self._client.Export)

    def _translate_data(self, data: MetricsData) -> Any:
        try:
            request = encode_metrics(data)
            request.ByteSize()
        except Exception:  # noqa: BLE001 - protobuf raises types of its own, and ValueError, TypeError, RecursionError
            return encode_metrics(_filtered(data, _can_be_encoded))
        return request


def _filtered(data: MetricsData, condition: Callable[[ResourceMetrics, ScopeMetrics, Metric], bool]) -> MetricsData:
    """The metrics that satisfy a condition."""
    return MetricsData(
        [
            dataclasses.replace(
                resource,
                scope_metrics=[
                    dataclasses.replace(scope, metrics=[m for m in scope.metrics if condition(resource, scope, m)])
                    for scope in resource.scope_metrics
                ],
            )
            for resource in data.resource_metrics
        ]
    )


def _can_be_encoded(resource: ResourceMetrics, scope: ScopeMetrics, metric: Metric) -> bool:
    alone = dataclasses.replace(scope, metrics=[metric])
    try:
        encode_metrics(MetricsData([dataclasses.replace(resource, scope_metrics=[alone])])).ByteSize()
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
