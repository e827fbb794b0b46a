"""Go's durations, numbers and JSON, for Jaeger's parameters, messages and errors are written in them."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from types import UnionType

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "\N{MICRO SIGN}s": 1_000,
    "\N{GREEK SMALL LETTER MU}s": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_TERM = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^.0-9]*)")
_INT64 = 1 << 63
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


def quote(text: str) -> str:
    """Return the text as a JSON string as Go writes it: HTML's special characters escaped."""
    return escape(json.dumps(text, ensure_ascii=False))


def escape(document: str) -> str:
    """Escape in a JSON document what Go's encoder escapes and Python's does not."""
    for character in "<>&\u2028\u2029":
        document = document.replace(character, f"\\u{ord(character):04x}")
    return document


def parse_int(text: str, bits: int = 64) -> int:
    """Read a decimal integer like strconv.ParseInt; raises ValueError with Go's message."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    number = int(text)
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def parse_bool(text: str) -> bool:
    """Read a truth value like strconv.ParseBool; raises ValueError with Go's message."""
    if text not in _TRUE | _FALSE:
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration such as ``1h30m`` or ``0.04s``; raises ValueError."""
    invalid = ValueError(f'time: invalid duration "{text}"')
    rest, total = text.lstrip("+-") if text[:1] in ("+", "-") else text, 0
    if len(text) - len(rest) > 1 or not rest:
        raise invalid
    if rest == "0":
        return 0
    while rest:
        term = _TERM.match(rest)
        if not term or not (term[1] or term[2]):
            raise invalid
        total += _nanoseconds(text, whole=term[1], fraction=term[2] or "", unit=term[3])
        rest = rest[term.end() :]
    if total >= _INT64:
        raise invalid
    return -total if text.startswith("-") else total


def _nanoseconds(text: str, *, whole: str, fraction: str, unit: str) -> int:
    if not unit:
        raise ValueError(f'time: missing unit in duration "{text}"')
    if unit not in _NANOSECONDS:
        raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
    return int(Decimal(f"{whole or 0}.{fraction or 0}") * _NANOSECONDS[unit])


def format_time(unix_nanoseconds: int) -> str:
    """Write a point in time as Go does: ``2026-01-02 03:04:10.03 +0000 UTC``."""
    seconds = unix_nanoseconds // 1_000_000_000
    fraction = _decimal(unix_nanoseconds % 1_000_000_000, 1_000_000_000).removeprefix("0")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


def _decimal(value: int, unit: int) -> str:
    return f"{(Decimal(value) / unit).normalize():f}"


def format_float(number: float) -> str:
    """Write a number as Go's JSON encoder does: no exponent between 1e-6 and 1e21."""
    if number == 0 or 1e-6 <= abs(number) < 1e21:  # noqa: PLR2004 - encoding/json's own bounds
        return f"{Decimal(repr(number)):f}".removesuffix(".0")
    return repr(number).replace("e-0", "e-")


def parse_string_map(text: str) -> dict[str, str]:
    """Read a JSON object of strings like json.Unmarshal into map[string]string; raises ValueError."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(_syntax_error(error.msg, error.doc, error.doc[error.pos :])) from error
    except RecursionError as error:
        raise ValueError("exceeded max depth") from error
    if found is None:
        return {}
    _check_type(found, dict, "map[string]string")
    for value in found.values():
        _check_type(value, str | None, "string")
    return {key: value or "" for key, value in found.items()}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"invalid character '{name[0]}' looking for beginning of value")


def _check_type(found: object, expected: type | UnionType, name: str) -> None:
    if isinstance(found, expected):
        return
    kind = _KINDS.get(type(found), "string")
    raise ValueError(f"json: cannot unmarshal {kind} into Go value of type {name}")


def _syntax_error(message: str, document: str, rest: str) -> str:
    if not rest.strip() or message.startswith("Unterminated"):
        return "unexpected end of JSON input"
    if message == "Expecting value" and rest[0] in _LITERALS:
        return _wrong_literal(rest, _LITERALS[rest[0]])
    where = _WHERE.get(message, "in string literal")
    if message == "Expecting ',' delimiter" and document.lstrip().startswith("["):
        where = "after array element"
    return f"invalid character {_quote_character(rest[0])} {where}"


def _wrong_literal(rest: str, literal: str) -> str:
    found, expected = next(pair for pair in zip(f"{rest} ", literal, strict=False) if len(set(pair)) > 1)
    return f"invalid character {_quote_character(found)} in literal {literal} (expecting '{expected}')"


def _quote_character(character: str) -> str:
    return f"'{_ESCAPED.get(character, character)}'"


_KINDS: dict[type, str] = {bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
_LITERALS = {"n": "null", "t": "true", "f": "false"}
_ESCAPED = {"'": r"\'", "\n": r"\n", "\t": r"\t", "\r": r"\r", "\\": r"\\"}
_WHERE = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "Extra data": "after top-level value",
}
