"""OpenTelemetry for grpc.aio: providers, spans of both sides of a call and of statements, and what measures them."""

from meshkit.telemetry.provider import Instrumentation, Telemetry, configure

__all__ = ["Instrumentation", "Telemetry", "configure"]
