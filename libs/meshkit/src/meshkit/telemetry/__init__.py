"""OpenTelemetry for grpc.aio: providers, spans of both sides of a call and of statements, and what measures them."""

from meshkit.config import Instrumentation
from meshkit.telemetry.provider import Telemetry, configure

__all__ = ["Instrumentation", "Telemetry", "configure"]
