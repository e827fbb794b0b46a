"""OpenTelemetry for grpc.aio: providers, client and server interceptors, database spans."""

from meshkit.telemetry.provider import Instrumentation, Telemetry, configure

__all__ = ["Instrumentation", "Telemetry", "configure"]
