"""What the specification allows as values of the OTEL_* variables, and the lines about other values.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and …/protocol/exporter/. The SDK
replaces such values by a default, or rejects them without the name of their variable.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from meshkit.telemetry import endpoints
from meshkit.telemetry.export import QUEUE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXPORTER = "OTEL_EXPORTER_OTLP_"
SIGNALS = ("", "TRACES_", "METRICS_")


class Names(NamedTuple):
    """The names that the specification allows as a value, in any case.

    Attributes:
        supported: those that this process supports.
        ignored: those that are ignored with a warning.
        is_list: whether several names may stand in it, separated by commas.
    """

    supported: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    is_list: bool = False


SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
OTHER_SAMPLERS = ("jaeger_remote", "parentbased_jaeger_remote", "xray")
OTHER_EXPORTERS = ("console", "logging", "otlp/stdout")
BOOLEAN = Names(("true", "false"))

NAMES = {
    "OTEL_SDK_DISABLED": BOOLEAN,
    "OTEL_TRACES_SAMPLER": Names(SAMPLERS, OTHER_SAMPLERS),
    "OTEL_PROPAGATORS": Names(
        ("tracecontext", "baggage", "none"), ("b3", "b3multi", "jaeger", "xray", "ottrace"), is_list=True
    ),
    "OTEL_TRACES_EXPORTER": Names(("otlp", "none"), (*OTHER_EXPORTERS, "zipkin", "jaeger"), is_list=True),
    "OTEL_METRICS_EXPORTER": Names(("otlp", "prometheus", "none"), OTHER_EXPORTERS, is_list=True),
    "OTEL_LOGS_EXPORTER": Names(("none",), ("otlp", *OTHER_EXPORTERS), is_list=True),
    "OTEL_METRICS_EXEMPLAR_FILTER": Names(("always_on", "always_off", "trace_based")),
    f"{EXPORTER}METRICS_TEMPORALITY_PREFERENCE": Names(("cumulative", "delta", "lowmemory")),
    f"{EXPORTER}METRICS_DEFAULT_HISTOGRAM_AGGREGATION": Names(
        ("explicit_bucket_histogram", "base2_exponential_bucket_histogram")
    ),
    **{f"{EXPORTER}{signal}PROTOCOL": Names(("grpc",), ("http/protobuf", "http/json")) for signal in SIGNALS},
    **{f"{EXPORTER}{signal}COMPRESSION": Names(("gzip", "none")) for signal in SIGNALS},
    **{f"{EXPORTER}{signal}INSECURE": BOOLEAN for signal in SIGNALS},
}

MAX_INTEGER = 2**31 - 1


class Rule(NamedTuple):
    """What the values of a variable are."""

    meaning: str
    is_valid: Callable[[str], bool]
    is_secret: bool = False


def _whole(least: int) -> Callable[[str], bool]:
    return lambda value: value.isascii() and value.isdecimal() and least <= int(value) <= MAX_INTEGER


def _seconds(value: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+", value))


def _pairs(key: str, text: str) -> Callable[[str], bool]:
    pair = re.compile(rf"\s*({key})\s*=({text})\s*|\s*")
    return lambda value: all(map(pair.fullmatch, value.split(",")))


def _headers(value: str) -> bool:
    pairs = _pairs(r"[\w.-]+", r'[^";\\]*')(value)
    return pairs and value.isascii() and unquote(value).isascii() and unquote(value).isprintable()


RATIO = Rule("a number from 0 to 1", lambda value: 0 <= float(value) <= 1)
TIME = Rule("a number of at least 0", _seconds)
DURATION = Rule("a whole number of at least 0", _whole(0))
SIZE = Rule("a whole number of at least 1", _whole(1))
LIMIT = Rule("a whole number of at least 0", _whole(0))
ATTRIBUTES = Rule("name=value pairs, separated by commas", _pairs(r"[^=\s][^=]*", ".*"))
HEADERS = Rule("name=value pairs, separated by commas and URL-encoded", _headers, is_secret=True)
ENDPOINT = Rule(endpoints.MEANING, endpoints.is_endpoint, is_secret=True)
FILE = Rule("a file that can be read", lambda value: Path(value).is_file() and os.access(value, os.R_OK))

RULES = {
    "OTEL_RESOURCE_ATTRIBUTES": ATTRIBUTES,
    "OTEL_METRIC_EXPORT_INTERVAL": DURATION,
    "OTEL_METRIC_EXPORT_TIMEOUT": DURATION,
    "OTEL_BSP_SCHEDULE_DELAY": DURATION,
    "OTEL_BSP_EXPORT_TIMEOUT": DURATION,
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
    **{f"{EXPORTER}{signal}TIMEOUT": TIME for signal in SIGNALS},
    **{f"{EXPORTER}{signal}HEADERS": HEADERS for signal in SIGNALS},
    **{f"{EXPORTER}{signal}ENDPOINT": ENDPOINT for signal in SIGNALS},
}
FILES = [
    f"{EXPORTER}{signal}{file}" for signal in SIGNALS for file in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
]


def faults(*, exports: bool, propagators: set[str]) -> Iterator[str]:
    """A line for each invalid value, with the name of its variable, and with the value unless it may be secret.

    Args:
        exports: whether an exporter is configured, which reads the files of certificates.
        propagators: the names of the installed propagators.
    """
    for name, names in NAMES.items():
        installed = propagators if name == "OTEL_PROPAGATORS" else set()
        if wrong := [value for value in values(name) if value not in {*names.supported, *names.ignored, *installed}]:
            yield f"{name}={wrong[0]}: must be one of {', '.join(names.supported)}"
    rules = {**RULES, **dict.fromkeys(FILES if exports else (), FILE)}
    if os.environ.get("OTEL_TRACES_SAMPLER", "").lower().endswith("traceidratio"):
        rules["OTEL_TRACES_SAMPLER_ARG"] = RATIO
    for name, rule in rules.items():
        if name in os.environ and not _is_valid(rule, os.environ[name]):
            yield f"{name}{'' if rule.is_secret else '=' + os.environ[name]}: must be {rule.meaning}"
    yield from _batch_faults()


def _batch_faults() -> Iterator[str]:
    queue, batch = (os.environ.get(f"OTEL_BSP_MAX_{size}", "") for size in ("QUEUE_SIZE", "EXPORT_BATCH_SIZE"))
    if batch.isdecimal() and int(batch) > int(queue if queue.isdecimal() else QUEUE_SIZE):
        yield f"OTEL_BSP_MAX_EXPORT_BATCH_SIZE={batch}: must be at most OTEL_BSP_MAX_QUEUE_SIZE"


def values(name: str) -> list[str]:
    """The names in a variable, in lower case."""
    text = os.environ.get(name, "")
    texts = text.split(",") if name in NAMES and NAMES[name].is_list else [text]
    return [value.strip().lower() for value in texts if value.strip()]


def _is_valid(rule: Rule, value: str) -> bool:
    try:
        return rule.is_valid(value)
    except ValueError:
        return False
