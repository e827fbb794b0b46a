"""Creates the OpenTelemetry providers of one process, and shuts them down last.

The standard `OTEL_*` variables configure it. Nothing is exported unless they set an OTLP endpoint. Providers are passed
as parameters; OpenTelemetry's global ones are set only with `configure(set_global=True)`.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from opentelemetry import metrics, propagate, trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits

from meshkit.extras import require
from meshkit.telemetry import semconv, variables
from meshkit.telemetry.export import FLUSH_SECONDS, otlp_export
from meshkit.telemetry.http_metrics import HttpMetrics
from meshkit.telemetry.repair import TEXT_LENGTH, valid_text
from meshkit.telemetry.rpc_metrics import CallMetrics, client_calls, server_calls
from meshkit.telemetry.spans import TracerProvider

if TYPE_CHECKING:
    from opentelemetry.sdk import trace as sdk

    from meshkit.config import Instrumentation
    from meshkit.telemetry.prometheus import MetricsPage


@dataclass(frozen=True)
class Telemetry:
    """The providers of one process, handed to servers, channels, databases and the HTTP edge.

    Attributes:
        tracer_provider: creates the tracers.
        meter_provider: creates the meters.
        instrumentation: whose interceptors create the spans of RPCs.
        page: the page of metrics for Prometheus.
    """

    tracer_provider: sdk.TracerProvider
    meter_provider: metrics.MeterProvider = field(default_factory=metrics.NoOpMeterProvider)
    instrumentation: Instrumentation = "native"
    page: MetricsPage | None = None

    @cached_property
    def meter(self) -> metrics.Meter:
        """Creates the instruments of meshkit."""
        return self.meter_provider.get_meter("meshkit", schema_url=semconv.SCHEMA_URL)

    @cached_property
    def client_calls(self) -> CallMetrics:
        """Measures the RPCs of all channels."""
        return client_calls(self.meter)

    @cached_property
    def server_calls(self) -> CallMetrics:
        """Measures the RPCs of all servers."""
        return server_calls(self.meter)

    @cached_property
    def http_requests(self) -> HttpMetrics:
        """Measures the HTTP requests of all servers."""
        return HttpMetrics(self.meter)

    async def shutdown(self) -> None:
        """Exports what is still queued and stops. Runs in threads, because it blocks up to `export.FLUSH_SECONDS`."""
        await asyncio.gather(asyncio.to_thread(self.tracer_provider.shutdown), asyncio.to_thread(self._stop_metrics))

    def _stop_metrics(self) -> None:
        if not isinstance(self.meter_provider, metrics.NoOpMeterProvider):
            self.meter_provider.shutdown(FLUSH_SECONDS * 1000)  # type: ignore[attr-defined] # only the SDK's has it


def configure(
    service_name: str,
    *,
    instrumentation: Instrumentation = "native",
    prometheus: bool = False,
    set_global: bool = False,
) -> Telemetry:
    """The telemetry of one process, exporting by OTLP/gRPC if the standard variables name an endpoint.

    An invalid value in one of them ends the process with status 2 and one line.

    Call it once, before the first channel or server, because processors and exporters start threads. End it with
    `shutdown`. There are metrics only with an endpoint or a page for them.

    Args:
        service_name: the name of the process, unless the standard variables set another.
        instrumentation: whose interceptors create the spans of RPCs.
        prometheus: whether there is a `page` of the metrics.
        set_global: whether these also become the global providers, with the propagators of the standard variables, for
            libraries that look for them there. OpenTelemetry accepts global providers only once in a process.

    Raises:
        ImportError: an extra of meshkit is not installed, `contrib` or `prometheus`.
    """
    if instrumentation == "contrib":
        require("contrib")
    variables.prepare()
    with variables.exit_on_invalid_variable():
        telemetry = _telemetry(resource(service_name), instrumentation, prometheus=prometheus)
        if set_global:
            _set_global(telemetry)
        return telemetry


def _telemetry(own: Resource, instrumentation: Instrumentation, *, prometheus: bool) -> Telemetry:
    provider = tracer_provider(own)
    if not (prometheus or variables.exports_metrics()):
        return Telemetry(provider, instrumentation=instrumentation)
    from meshkit.telemetry.metrics import meter_provider  # noqa: PLC0415 - costs time

    page = _page() if prometheus else None
    meters = meter_provider([page.reader] if page else [], own, export=variables.exports_metrics())
    return Telemetry(provider, meters, instrumentation, page)


def _page() -> MetricsPage:
    from meshkit.telemetry.prometheus import MetricsPage  # noqa: PLC0415 - an extra

    return MetricsPage()


def _set_global(telemetry: Telemetry) -> None:
    trace.set_tracer_provider(telemetry.tracer_provider)
    metrics.set_meter_provider(telemetry.meter_provider)
    propagate.set_global_textmap(variables.propagator())


def tracer_provider(own: Resource) -> TracerProvider:
    """The provider of tracers, which exports batches by OTLP/gRPC if the variables name an endpoint."""
    limits = SpanLimits()
    if limits.max_span_attribute_length is None:
        limits = SpanLimits(max_span_attribute_length=TEXT_LENGTH)
    provider = TracerProvider(resource=own, shutdown_on_exit=False, span_limits=limits)
    if variables.exports_spans():
        provider.add_span_processor(otlp_export())
    return provider


def resource(service_name: str) -> Resource:
    """The resource of the process. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the defaults."""
    own: dict[str, str | int] = {
        "service.name": service_name,
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
    }
    # os.environ has halves of surrogate pairs for bytes that are not UTF-8
    given = {
        valid_text(name): valid_text(str(value)) for name, value in OTELResourceDetector().detect().attributes.items()
    }
    return Resource.create({**own, **given})
