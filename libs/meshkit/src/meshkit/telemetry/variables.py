"""Reads the standard OTEL_* variables that the SDK itself does not handle.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. An unsupported variable or value
logs a warning; an invalid value ends the process.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from opentelemetry import propagate
from opentelemetry.context import get_current
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import default_getter

from meshkit.telemetry.invalid_variables import NAMES, faults, values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import CarrierT, Getter

log = logging.getLogger("meshkit.telemetry")

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

UNSUPPORTED = re.compile(
    r"OTEL_(BSP_EXPORT_TIMEOUT|LOG_LEVEL|EXPORTER_(PROMETHEUS|ZIPKIN|OTLP_LOGS)_\w+|(EXPERIMENTAL_)?CONFIG_FILE"
    r"|BLRP_\w+|LOGRECORD_\w+)"
)
"""The variables of the specification that no value has an effect on."""

NOT_ZERO = ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_METRIC_EXPORT_INTERVAL")
"""The durations that the SDK rejects if they are 0, which the specification allows."""


def prepare() -> None:
    """Prepares the variables for the SDK, and logs the unsupported ones.

    An invalid value ends the process with status 2 and one line for each. By the specification an empty variable counts
    as unset, and names are valid in any case. What is ignored is removed, so that nothing else complains about it.
    """
    _normalize()
    if not is_disabled() and (lines := list(_faults())):
        print("\n".join(lines), file=sys.stderr)  # noqa: T201 - for the operator
        sys.exit(2)
    if not is_disabled():
        _warn()
    if "OTEL_PROPAGATORS" in os.environ:
        propagate.set_global_textmap(propagator())


def _normalize() -> None:
    for name, value in [*os.environ.items()]:
        if name.startswith("OTEL_"):
            text = ",".join(values(name)) if name in NAMES else value.strip()
            if name == "OTEL_RESOURCE_ATTRIBUTES":  # the SDK warns of an empty pair
                text = ",".join(pair for pair in text.split(",") if pair.strip())
            os.environ[name] = text
            if not text:
                del os.environ[name]


def _faults() -> Iterator[str]:
    installed = _installed_propagators() if "OTEL_PROPAGATORS" in os.environ else {}
    return faults(exports=exports_spans() or exports_metrics(), propagators=set(installed))


def _warn() -> None:
    """Logs and removes what is not supported. An exporter stays: instead of it there is none, not the default."""
    for name in sorted(filter(UNSUPPORTED.fullmatch, os.environ)):
        log.warning("%s is not supported and is ignored", name)
        del os.environ[name]
    for name in NOT_ZERO:
        if name in os.environ and int(os.environ[name]) == 0:
            log.warning("%s=0 is not supported and is ignored; supported: numbers greater than 0", name)
            del os.environ[name]
    for name, names in NAMES.items():
        installed = _installed_propagators() if name == "OTEL_PROPAGATORS" and name in os.environ else ()
        ignored = [value for value in values(name) if value in names.ignored and value not in installed]
        if ignored:
            text, supported = ",".join(ignored), ", ".join(names.supported)
            log.warning("%s=%s is not supported and is ignored; supported: %s", name, text, supported)
            if not name.endswith("_EXPORTER"):
                os.environ[name] = ",".join(value for value in values(name) if value not in ignored)
                if not os.environ[name]:
                    del os.environ[name]


def propagator() -> CompositePropagator:
    """The configured propagators in one; by default those of the specification."""
    installed = _installed_propagators()
    names = [*dict.fromkeys(values("OTEL_PROPAGATORS") or ["tracecontext", "baggage"])]
    if "none" in names:
        return NoPropagator([])
    return CompositePropagator([installed[name].load()() for name in names if name in installed])


def _installed_propagators() -> dict[str, EntryPoint]:
    return {found.name.lower(): found for found in entry_points(group="opentelemetry_propagator")}


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
    return bool(endpoint) and "otlp" in (values("OTEL_TRACES_EXPORTER") or ["otlp"]) and not is_disabled()


def exports_metrics() -> bool:
    """Whether the variables name an endpoint for metrics.

    OTEL_EXPORTER_OTLP_ENDPOINT by itself is for traces only, because most trace backends accept no metrics. With
    OTEL_METRICS_EXPORTER=otlp it is for metrics too.
    """
    exporters = values("OTEL_METRICS_EXPORTER")
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or (exporters and os.environ.get(ENDPOINT))
    return bool(endpoint) and "otlp" in (exporters or ["otlp"]) and not is_disabled()


class NoPropagator(CompositePropagator):
    """Reads and writes nothing. Unlike an empty CompositePropagator, it returns a context."""

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """The context, unchanged."""
        return super().extract(carrier, get_current() if context is None else context, getter)
