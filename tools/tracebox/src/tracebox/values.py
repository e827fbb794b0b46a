"""Converts OTLP attribute values as Jaeger does: to text for searches, and to typed tags for its JSON.

Source: pdata's `Value.AsString` and Jaeger's `convertKeyValues`.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from tracebox.compact_json import dump_float, dumps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_MAX_SAFE_INTEGER = (1 << 53) - 1  # the largest integer that is exact as a JavaScript number
Scalar: TypeAlias = str | bool | int | float


class Tag(TypedDict):
    """One key and value of Jaeger's JSON; `type` is string, bool, int64, float64 or binary."""

    key: str
    type: str
    value: Scalar


def text(value: AnyValue) -> str:
    """The value as text, for comparison in a search."""
    match value.WhichOneof("value"):
        case None:
            return ""
        case "string_value":
            return value.string_value
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case _:
            return json_text(value)


def json_text(value: AnyValue) -> str:
    """The value as compact JSON with sorted keys."""
    match value.WhichOneof("value"):
        case "array_value":
            return f"[{','.join(map(json_text, value.array_value.values))}]"
        case "kvlist_value":
            pairs = sorted({pair.key: json_text(pair.value) for pair in value.kvlist_value.values}.items())
            return "{" + ",".join(f"{dumps(key)}:{item}" for key, item in pairs) + "}"
        case "double_value":
            return dump_float(value.double_value)
        case "int_value" | "bool_value" as kind:
            return dumps(getattr(value, kind))
        case None:
            return "null"
        case _:
            return dumps(text(value))


def tags(attributes: Iterable[KeyValue]) -> list[Tag]:
    """The attributes as Jaeger's tags, in the same order."""
    return [tag(attribute.key, attribute.value) for attribute in attributes]


def tag(key: str, value: AnyValue) -> Tag:
    """One attribute as Jaeger's tag; arrays and maps become JSON in a string."""
    match value.WhichOneof("value"):
        case "bool_value":
            return {"key": key, "type": "bool", "value": value.bool_value}
        case "int_value":
            return {"key": key, "type": "int64", "value": _integer(value.int_value)}
        case "double_value":
            return {"key": key, "type": "float64", "value": _number(value.double_value)}
        case "bytes_value":
            return {"key": key, "type": "binary", "value": text(value)}
        case _:
            return {"key": key, "type": "string", "value": text(value)}


def _integer(number: int) -> int | str:
    return number if abs(number) <= _MAX_SAFE_INTEGER else str(number)


def _number(number: float) -> float | int | str:
    if not math.isfinite(number):
        return str(number)  # JSON has no such number, and this attribute must not make the trace unreadable
    written = dump_float(number)
    return int(written) if written.removeprefix("-").isdecimal() else number
