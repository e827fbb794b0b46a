"""Reads the standard OTEL_* variables that the SDK itself does not handle.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. An unsupported variable or value
logs a warning; an invalid value ends the process.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from opentelemetry import propagate
from opentelemetry.context import get_current
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import default_getter

from meshkit.telemetry.invalid_variables import SAMPLERS, faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import CarrierT, Getter

log = logging.getLogger("meshkit.telemetry")

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

SUPPORTED: dict[str, tuple[str, ...]] = {
    "OTEL_TRACES_SAMPLER": SAMPLERS,
    "OTEL_TRACES_EXPORTER": ("otlp", "none"),
    "OTEL_METRICS_EXPORTER": ("otlp", "prometheus", "none"),
    "OTEL_LOGS_EXPORTER": ("none",),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("grpc",),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("grpc",),
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": ("grpc",),
    "OTEL_BSP_EXPORT_TIMEOUT": (),
    "OTEL_LOG_LEVEL": (),
    "OTEL_EXPORTER_PROMETHEUS_HOST": (),
    "OTEL_EXPORTER_PROMETHEUS_PORT": (),
    "OTEL_CONFIG_FILE": (),
}
"""The supported values of variables for which others exist. An empty tuple means that the variable is unsupported."""


def prepare() -> None:
    """Prepares the variables for the SDK, and logs the unsupported ones.

    An invalid value ends the process with status 2 and one line for each.

    By the specification an empty variable counts as unset, but the SDK fails on some empty variables. It also fails on
    the propagator `none`.
    """
    for name in [name for name, value in os.environ.items() if name.startswith("OTEL_") and not value.strip()]:
        del os.environ[name]
    if not is_disabled() and (lines := list(faults())):
        print("\n".join(lines), file=sys.stderr)  # noqa: T201 - for the operator
        sys.exit(2)
    if "none" in propagators():
        propagate.set_global_textmap(propagator())
    for name, supported in SUPPORTED.items():
        for value in _values(name):
            if value not in supported and not is_disabled():
                log.warning(
                    "%s=%s is not supported and is ignored; supported: %s", name, value, ", ".join(supported) or "none"
                )


def propagators() -> list[str]:
    """The names of the configured propagators."""
    return _values("OTEL_PROPAGATORS") or ["tracecontext", "baggage"]


def propagator() -> CompositePropagator:
    """The configured propagators in one. OpenTelemetry creates the same at import, but not for `none`."""
    names = propagators()
    if "none" in names:
        return NoPropagator([])
    available = entry_points(group="opentelemetry_propagator")
    return CompositePropagator([available[name].load()() for name in names])


@contextmanager
def exit_on_invalid_variable() -> Iterator[None]:
    """Ends the process with status 2 and one line if the SDK rejects the value of a variable."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - exporters raise their own types
        print(f"OTEL_*: {error}", file=sys.stderr)  # noqa: T201 - for the operator
        sys.exit(2)


def is_disabled() -> bool:
    """Whether telemetry is disabled."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def exports_spans() -> bool:
    """Whether the variables name an endpoint for spans, and no other exporter."""
    endpoint = os.environ.get(ENDPOINT) or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return bool(endpoint) and "otlp" in (_values("OTEL_TRACES_EXPORTER") or ["otlp"]) and not is_disabled()


def exports_metrics() -> bool:
    """Whether the variables name an endpoint for metrics.

    OTEL_EXPORTER_OTLP_ENDPOINT by itself is for traces only, because most trace backends accept no metrics. With
    OTEL_METRICS_EXPORTER=otlp it is for metrics too.
    """
    exporters = _values("OTEL_METRICS_EXPORTER")
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or (exporters and os.environ.get(ENDPOINT))
    return bool(endpoint) and "otlp" in (exporters or ["otlp"]) and not is_disabled()


class NoPropagator(CompositePropagator):
    """Reads and writes nothing. Unlike an empty CompositePropagator, it returns a context."""

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """The context, unchanged."""
        return super().extract(carrier, get_current() if context is None else context, getter)


def _values(name: str) -> list[str]:
    return [value.strip().lower() for value in os.environ.get(name, "").split(",") if value.strip()]
