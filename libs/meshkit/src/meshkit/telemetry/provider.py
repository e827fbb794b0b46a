"""Makes the OpenTelemetry providers of one process and shuts them down last.

Configured by the standard `OTEL_*` variables alone. Nothing is exported unless an OTLP endpoint is set. Providers
are passed to whoever makes spans; the global ones stay untouched.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from opentelemetry import metrics
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider

from meshkit.telemetry.export import otlp_export

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.trace import SpanProcessor

Instrumentation = Literal["native", "contrib"]
"""Whose gRPC interceptors make the spans: meshkit's own, or opentelemetry-instrumentation-grpc's."""


@dataclass(frozen=True)
class Telemetry:
    """The providers of one process, handed to servers, channels, databases and the HTTP edge."""

    tracer_provider: TracerProvider
    meter_provider: metrics.MeterProvider = field(default_factory=metrics.NoOpMeterProvider)
    instrumentation: Instrumentation = "native"

    async def shutdown(self) -> None:
        """Exports what is still queued and stops. Off the event loop, for it blocks up to `export.FLUSH_SECONDS`."""
        await asyncio.to_thread(self.tracer_provider.shutdown)


def configure(
    service_name: str, *, instrumentation: Instrumentation = "native", metric_readers: Sequence[MetricReader] = ()
) -> Telemetry:
    """The telemetry of one process, exporting by OTLP/gRPC if the standard variables name an endpoint.

    The caller ends it with `shutdown`. Make it once, before the first channel or server (both processors and
    exporter start threads).
    """
    own = resource(service_name)
    provider = TracerProvider(resource=own, shutdown_on_exit=False)
    if processor := otlp_processor():
        provider.add_span_processor(processor)
    if not metric_readers:
        return Telemetry(provider, instrumentation=instrumentation)
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - costs 60 ms, and backends have no readers

    meters = MeterProvider(metric_readers, own, shutdown_on_exit=False)
    return Telemetry(provider, meters, instrumentation)


def resource(service_name: str) -> Resource:
    """Who emits: the name and one instance id per process, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say."""
    own: dict[str, str | int] = {
        "service.name": service_name,
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
    }
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


def otlp_processor() -> SpanProcessor | None:
    """A batching processor with an OTLP/gRPC exporter, or None where no endpoint is set."""
    if not any(map(os.environ.get, ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))):
        return None
    return otlp_export()
