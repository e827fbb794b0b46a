"""Writes JSON as Jaeger does, with the rules of Go's `encoding/json`."""

from __future__ import annotations

import json
from decimal import Decimal

_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def dumps(document: object) -> str:
    """The document without spaces; `<`, `>`, `&` and Unicode line separators are escaped."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def dump_float(number: float) -> str:
    """The number, without an exponent from 1e-6 to 1e21, and without a fraction if it is whole."""
    if number == 0 or 1e-6 <= abs(number) < 1e21:  # noqa: PLR2004 - encoding/json's own bounds
        return f"{Decimal(repr(number)):f}".removesuffix(".0")
    return repr(number).replace("e-0", "e-")
