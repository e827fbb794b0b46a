"""Deadlines, errors, health, lifecycle and telemetry for grpc.aio services."""

import os

# OpenTelemetry creates the propagators when it is first imported, and raises for a name that is not installed.
# `meshkit.telemetry` creates those that there are, and warns of the others.
_propagators = os.environ.pop("OTEL_PROPAGATORS", None)
import opentelemetry.propagate  # noqa: E402, F401

if _propagators is not None:
    os.environ["OTEL_PROPAGATORS"] = _propagators
