"""Deadlines, errors, health, lifecycle and telemetry for grpc.aio services."""
