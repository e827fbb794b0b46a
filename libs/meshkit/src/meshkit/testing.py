"""Tools for tests of a service: a real server on a free port, its spans, and a clock that tests set."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshkit import addresses
from meshkit.lifecycle import bind
from meshkit.telemetry import spans
from meshkit.telemetry.provider import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    from meshkit.config import Instrumentation
    from meshkit.telemetry.prometheus import MetricsPage


@dataclass(frozen=True)
class SpanCapture:
    """Telemetry that keeps ended spans in memory, in the order of their ends. With a `page` it also has metrics."""

    service: str
    instrumentation: Instrumentation = "native"
    page: MetricsPage | None = None
    provider: type[TracerProvider] = spans.TracerProvider
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    telemetry: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        provider = self.provider(resource=Resource({"service.name": self.service}), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        meters = MeterProvider([self.page.reader] if self.page else [], shutdown_on_exit=False)
        object.__setattr__(self, "telemetry", Telemetry(provider, meters, self.instrumentation, self.page))

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """The ended spans; with a name, only those of that name."""
        return [span for span in self.exporter.get_finished_spans() if name in (None, span.name)]


@asynccontextmanager
async def start_server(
    server: grpc.aio.Server, listen: str = "127.0.0.1:0", *, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    """Starts the server, by default on a free loopback port. Yields its address, and stops it without grace."""
    port = bind(server, listen, credentials)
    await server.start()
    try:
        yield str(addresses.resolve(listen)._replace(port=port))
    finally:
        await server.stop(None)


class FakeClock:
    """A clock that only tests move."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The current time."""
        return self.now

    def advance(self, by: timedelta) -> None:
        """Moves the clock forward, or backward by a negative difference."""
        self.now += by
