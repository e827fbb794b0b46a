"""The global providers and propagator. A process sets them once, so each case is a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import json, sys
from opentelemetry import metrics, propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from meshkit.telemetry import configure

propagate.set_global_textmap(CompositePropagator([]))  # as another library may have left it
telemetry = configure("shop", prometheus=True, **json.loads(sys.argv[1]))
with trace.get_tracer("a library").start_as_current_span("sell"):
    carrier = {}
    propagate.inject(carrier)
print(json.dumps({
    "tracer": trace.get_tracer_provider() is telemetry.tracer_provider,
    "meter": metrics.get_meter_provider() is telemetry.meter_provider,
    "propagated": sorted(carrier),
}))
"""


def outcome(options: dict[str, bool], propagators: str = "") -> Any:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(options)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**variables, "OTEL_PROPAGATORS": propagators}
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("options", [{}, {"set_global": False}])
def test_nothing_global_is_set_by_default(options: dict[str, bool]) -> None:
    assert outcome(options) == {"tracer": False, "meter": False, "propagated": []}


@pytest.mark.parametrize(
    ("propagators", "headers"), [("", ["traceparent"]), ("baggage,tracecontext", ["traceparent"]), ("none", [])]
)
def test_set_global_sets_the_providers_and_the_propagators_of_the_variables(
    propagators: str, headers: list[str]
) -> None:
    assert outcome({"set_global": True}, propagators) == {"tracer": True, "meter": True, "propagated": headers}
