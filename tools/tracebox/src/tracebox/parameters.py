"""Reads the query parameters of Jaeger's API; the error messages are our own.

Source: `query_parser.go` of Jaeger's query service.
"""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING

from tracebox.search import BOOLEANS, FOREVER, Search

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 100_000  # Jaeger's default for max_traces
_DEFAULT_LOOKBACK_US = 48 * 3600 * 1_000_000
_INT32, _INT64 = 1 << 31, 1 << 63
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\N{MICRO SIGN}s": 1_000,
    "\N{GREEK SMALL LETTER MU}s": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_TERM = re.compile(rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)({'|'.join(_UNITS)})")
_DURATION = re.compile(rf"(?:{_TERM.pattern})+|0")
_SUMMARIES = ("service", "operation", "start", "end", "minDuration", "maxDuration", "limit", "tag", "tags", "errors")
_WRONG_LIMIT = f"'limit' must be a whole number from 1 to {_MAX_LIMIT}."
_WRONG_TAGS = """'tags' must be a JSON object of strings, such as {"cached":"true"}: quote numbers and booleans."""


class InvalidQuery(Exception):
    """A parameter is missing or invalid; the text is for the client, and `status` is Jaeger's."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


def parse_trace_id(text: str) -> bytes:
    """The 16 bytes of an id that is written with up to 32 hexadecimal digits. Raises InvalidQuery."""
    if not re.fullmatch(r"[0-9A-Fa-f]{1,32}", text):
        raise InvalidQuery("A trace id is 1 to 32 hexadecimal digits.")
    return bytes.fromhex(text.zfill(32))


def check_limit(limit: int, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
    """Raises InvalidQuery with `status` for a `limit` that is out of range."""
    if not 0 < limit <= _MAX_LIMIT:
        raise InvalidQuery(_WRONG_LIMIT, status)


class Parameters:
    """Reads one request's parameters; every method raises InvalidQuery."""

    def __init__(self, query: QueryParams) -> None:
        self._query = query

    def text(self, name: str) -> str:
        """The first value of the parameter; empty if it is missing."""
        return next(iter(self._query.getlist(name)), "")

    def require_service(self) -> None:
        """Raises InvalidQuery unless the request names a service."""
        if not self.text("service"):
            raise InvalidQuery(
                "'service' is missing: use one that /api/services lists, or give trace ids in 'traceID'."
            )

    def trace_ids(self) -> list[bytes]:
        """The ids of all `traceID` parameters."""
        return [parse_trace_id(text) for text in self._query.getlist("traceID")]

    def search(self, lookback_us: int | None = _DEFAULT_LOOKBACK_US) -> Search:
        """The search conditions; the service may be missing. For `lookback_us` see `window`."""
        start_min, start_max = self.window(lookback_us)
        shortest, longest = self.duration("minDuration"), self.duration("maxDuration")
        if shortest and longest and longest < shortest:
            raise InvalidQuery("'maxDuration' must not be shorter than 'minDuration'.")
        return Search(
            service=self.text("service"),
            operation=self.text("operation"),
            start_min=start_min,
            start_max=start_max,
            duration_min=shortest,
            duration_max=longest,
            tags=self._tags(),
        )

    def window(self, lookback_us: int | None = _DEFAULT_LOOKBACK_US) -> tuple[int, int]:
        """`start` and `end` in nanoseconds; by default the last 48 hours, and all times if `lookback_us` is None."""
        now = time.time_ns() // 1000
        first, last = (0, FOREVER // 1000) if lookback_us is None else (now - lookback_us, now)
        return self._microseconds("start", first), self._microseconds("end", last)

    def _microseconds(self, name: str, default: int) -> int:
        problem = f"'{name}' must be a time in whole microseconds since 1970, such as 1767323045000000."
        return 1000 * self._integer(name, default, below=_INT64, problem=problem)

    def limit(self) -> int:
        """The largest number of traces to return, 100 by default; see `check_limit`."""
        return self._integer("limit", _DEFAULT_LIMIT, below=_INT32, problem=_WRONG_LIMIT)

    def _integer(self, name: str, default: int, *, below: int, problem: str) -> int:
        text = self.text(name)
        if not text:
            return default
        if not _INTEGER.fullmatch(text) or not -below <= int(text) < below:
            raise InvalidQuery(problem)
        return int(text)

    def flag(self, name: str) -> bool:
        """A boolean, false by default."""
        text = self.text(name)
        if text and text not in BOOLEANS:
            raise InvalidQuery(f"'{name}' must be true or false.")
        return BOOLEANS.get(text, False)

    def duration(self, name: str) -> int:
        """A duration such as `10ms` or `1h2m3.5s` in nanoseconds, 0 by default."""
        problem = InvalidQuery(f"'{name}' must be a duration with its unit, such as 250us, 10ms or 1.5s.")
        text = self.text(name) or "0"
        if not _DURATION.fullmatch(text):
            raise problem
        total = sum(int(Decimal(number) * _UNITS[unit]) for number, unit in _TERM.findall(text))
        if total >= _INT64:
            raise problem
        return total

    def _tags(self) -> dict[str, str]:
        tags: dict[str, str] = {}
        for pair in self._query.getlist("tag"):
            key, colon, value = pair.partition(":")
            if not colon:
                raise InvalidQuery("'tag' must be key:value, such as tag=cached:true.")
            tags[key] = value
        for document in self._query.getlist("tags"):
            tags |= _parse_tags(document)
        return tags


def read_summaries(query: QueryParams) -> tuple[Search, bool, int]:
    """The search, whether only failed traces are wanted, and the limit, of our own list, which is stricter than Jaeger.

    Raises InvalidQuery for a parameter that is unknown, empty, repeated or invalid, and for a range that is reversed.
    """
    _check_names(query)
    parameters = Parameters(query)
    search, failed_only, limit = parameters.search(lookback_us=None), parameters.flag("errors"), parameters.limit()
    if not 0 <= search.start_min <= search.start_max:
        raise InvalidQuery("'start' must not be negative or later than 'end'.")
    check_limit(limit)
    return search, failed_only, limit


def _check_names(query: QueryParams) -> None:
    for name, value in query.multi_items():
        if name not in _SUMMARIES:
            raise InvalidQuery(f"A parameter is unknown; these are known: {', '.join(_SUMMARIES)}.")
        if not value:
            raise InvalidQuery(f"'{name}' is empty: leave it out instead.")
        if not name.startswith("tag") and len(query.getlist(name)) > 1:
            raise InvalidQuery(f"'{name}' is given more than once.")


def _parse_tags(document: str) -> dict[str, str]:
    try:
        tags = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise InvalidQuery(_WRONG_TAGS) from error
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise InvalidQuery(_WRONG_TAGS)
    return tags
