"""Reads JSON bodies strictly: what two parsers may read differently, or what costs much memory, is a 422.

Python's own parser accepts UTF-16, NaN and repeated keys, of which it takes the last (RFC 8259, sections 4, 6 and 8;
RFC 7493, section 2). FastAPI makes a Python object of each invalid field, about 1 kB, before the first is reported.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import TYPE_CHECKING, Any, NoReturn

from fastapi import Request

from meshkit.fastapi.problem_details import InvalidBody, Violation, field_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_VALUES = 1000
"""How many members of objects and items of lists a body may have."""

MAX_DIGITS = sys.int_info.str_digits_check_threshold
"""How many digits a whole number may have: those that Python converts under every setting."""

Path = tuple[Any, ...]
"""The keys that lead to a value as a linked list, `(key, path of the parent)`, or empty for the whole document."""


class JsonRequest(Request):
    """A request whose `json()` is strict."""

    async def json(self) -> Any:
        """The value of the body. Raises InvalidBody."""
        return parse(await self.body())


def parse(body: bytes, *, max_values: int = MAX_VALUES) -> Any:
    """The value of a JSON text. Raises InvalidBody with the place of the first fault."""
    text = _decode(body)
    try:
        document = _load(STRICT, text)
    except _Forbidden:
        document = _load(MARKING, text)
        _report(document, lambda value: value.description if isinstance(value, _Fault) else "")
    if sum(map(body.count, (b",", b"[", b"{"))) > max_values and _has_more_values(document, max_values):
        raise _invalid(f"has more than {max_values} values")
    if SURROGATE.search(body):
        _report(document, _surrogate)
    return document


def _decode(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"is not JSON in UTF-8: invalid byte at position {error.start}") from None


def _load(decoder: JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except JSONDecodeError as error:
        raise _invalid(f"is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _invalid("is nested too deeply") from None


class _Forbidden(ValueError):
    """The text has a repeated key, NaN or Infinity, or a number with too many digits."""


@dataclass(frozen=True)
class _Fault:
    """Stands in a document for a value that is forbidden."""

    description: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Forbidden
    return members


def _marked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        members[key] = _Fault("the key is repeated") if key in members else value
    return members


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Forbidden
    return int(digits)


def _marked_integer(digits: str) -> int | _Fault:
    try:
        return _integer(digits)
    except _Forbidden:
        return _Fault(f"has more than {MAX_DIGITS} digits")


def _forbid(_constant: str) -> NoReturn:
    raise _Forbidden


STRICT = JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_forbid)
MARKING = JSONDecoder(
    object_pairs_hook=_marked_object,
    parse_int=_marked_integer,
    parse_constant=lambda constant: _Fault(f"{constant} is not JSON"),
)
"""Parses what STRICT refuses, to find where the fault is."""

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escape that may be half of a character, which has no encoding in UTF-8."""


def _surrogate(value: object) -> str:
    texts = value if isinstance(value, dict) else [value] if isinstance(value, str) else []
    return "has half of a surrogate pair" if any(re.search("[\ud800-\udfff]", text) for text in texts) else ""


def _has_more_values(document: object, limit: int) -> bool:
    return any(number > limit for number, _ in enumerate(_values(document)))


def _report(document: object, describe: Callable[[Any], str]) -> None:
    """Raises InvalidBody for the first value that `describe` describes."""
    for path, value in _values(document):
        if description := describe(value):
            raise _invalid(description, path)


def _values(document: object) -> Iterator[tuple[Path, Any]]:
    """Every value with its path, beginning with the document itself, in the order of the text."""
    unvisited: list[tuple[Path, Any]] = [((), document)]
    while unvisited:
        path, value = unvisited.pop()
        yield path, value
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        unvisited.extend(reversed([((key, path), item) for key, item in items]))


def _invalid(description: str, path: Path = ()) -> InvalidBody:
    keys = []
    while path:
        key, path = path
        keys.append(key)
    return InvalidBody(Violation(field=field_of(keys[::-1]) or "body", description=description))
