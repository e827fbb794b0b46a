"""Finds invalid values of the standard variables that the SDK replaces by a default, or rejects without their name."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
"""https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration."""

OTHER_SAMPLERS = ("jaeger_remote", "parentbased_jaeger_remote", "xray")
"""The specification's other samplers, which the SDK does not have."""


class Rule(NamedTuple):
    """What the values of a variable are."""

    meaning: str
    is_valid: Callable[[str], bool]


SAMPLER = Rule(f"one of {', '.join(SAMPLERS)}", lambda value: value.lower() in {*SAMPLERS, *OTHER_SAMPLERS})
RATIO = Rule("a number from 0 to 1", lambda value: 0 <= float(value) <= 1)
TIME = Rule("a number of at least 0", lambda value: 0 <= float(value) < math.inf)
POSITIVE = Rule("a number greater than 0", lambda value: 0 < float(value) < math.inf)
SIZE = Rule("a whole number of at least 1", lambda value: int(value) >= 1)
LIMIT = Rule("a whole number of at least 0", lambda value: int(value) >= 0)

RULES = {
    "OTEL_TRACES_SAMPLER": SAMPLER,
    "OTEL_EXPORTER_OTLP_TIMEOUT": TIME,
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": TIME,
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": TIME,
    "OTEL_METRIC_EXPORT_INTERVAL": POSITIVE,
    "OTEL_METRIC_EXPORT_TIMEOUT": TIME,
    "OTEL_BSP_SCHEDULE_DELAY": SIZE,
    "OTEL_BSP_MAX_QUEUE_SIZE": SIZE,
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": SIZE,
    "OTEL_ATTRIBUTE_COUNT_LIMIT": LIMIT,
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": LIMIT,
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": LIMIT,
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": LIMIT,
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": LIMIT,
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": LIMIT,
    "OTEL_SPAN_EVENT_COUNT_LIMIT": LIMIT,
    "OTEL_SPAN_LINK_COUNT_LIMIT": LIMIT,
}


def faults() -> Iterator[str]:
    """A line for each invalid value, with the name of its variable."""
    rules = dict(RULES)
    if os.environ.get("OTEL_TRACES_SAMPLER", "").lower().endswith("traceidratio"):
        rules["OTEL_TRACES_SAMPLER_ARG"] = RATIO
    for name, rule in rules.items():
        if name in os.environ and not _is_valid(rule, os.environ[name]):
            yield f"{name}={os.environ[name]}: must be {rule.meaning}"


def _is_valid(rule: Rule, value: str) -> bool:
    try:
        return rule.is_valid(value)
    except ValueError:
        return False
