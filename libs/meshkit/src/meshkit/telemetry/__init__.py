"""OpenTelemetry for grpc.aio: providers, export, and metrics of RPCs."""

from meshkit.config import Instrumentation
from meshkit.telemetry.provider import Telemetry, configure

__all__ = ["Instrumentation", "Telemetry", "configure"]
