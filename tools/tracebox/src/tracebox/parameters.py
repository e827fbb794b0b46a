"""The query parameters of Jaeger's API, with Jaeger's answers where they are wrong.

Source: ``query_parser.go`` of Jaeger's query service.
"""

import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from starlette.datastructures import QueryParams

from tracebox import golang
from tracebox.search import Search

_DEFAULT_LIMIT = 100
_DEFAULT_LOOKBACK = 48 * 3600 * 1_000_000_000
_HALF_ID_DIGITS = 16

T = TypeVar("T")


class BadQueryError(Exception):
    """The request cannot be answered; the text and ``status`` are what Jaeger would say."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


def parse_trace_id(text: str) -> bytes:
    """Read up to 32 hexadecimal digits as 16 bytes; raises BadQueryError."""
    if len(text) > 2 * _HALF_ID_DIGITS:
        raise BadQueryError(f"TraceID cannot be longer than 32 hex characters: {text}")
    split = max(0, len(text) - _HALF_ID_DIGITS)
    for half in filter(None, (text[:split], text[split:])) if text else [text]:
        if not re.fullmatch(r"[0-9A-Fa-f]+", half):
            raise BadQueryError(f'strconv.ParseUint: parsing "{half}": invalid syntax')
    return bytes.fromhex(text.zfill(2 * _HALF_ID_DIGITS))


class Parameters:
    """Reads one request's parameters; every method raises BadQueryError."""

    def __init__(self, query: QueryParams) -> None:
        self._query = query

    def text(self, name: str) -> str:
        """Return the parameter's first value, or nothing."""
        return next(iter(self._query.getlist(name)), "")

    def service(self) -> str:
        """Return the service's name, which must be given."""
        service = self.text("service")
        if not service:
            raise BadQueryError("parameter 'service' is required")
        return service

    def trace_ids(self) -> list[bytes]:
        """Return all ``traceID``."""
        try:
            return [parse_trace_id(text) for text in self._query.getlist("traceID")]
        except BadQueryError as error:
            raise BadQueryError(f"cannot parse traceID param: {error}") from error

    def search(self) -> Search:
        """Return what to search for; the service may be missing."""
        start_min, start_max = self.window()
        shortest, longest = self.duration("minDuration"), self.duration("maxDuration")
        if shortest and longest and longest < shortest:
            raise BadQueryError("'maxDuration' should be greater than 'minDuration'")
        return Search(
            service=self.text("service"),
            operation=self.text("operation"),
            start_min=start_min,
            start_max=start_max,
            duration_min=shortest,
            duration_max=longest,
            tags=self._tags(),
        )

    def window(self) -> tuple[int, int]:
        """Return ``start`` and ``end``, given in microseconds, in nanoseconds; else the last 48 hours."""
        now = time.time_ns()
        start = self._parsed("start", lambda text: golang.parse_int(text) * 1000, now - _DEFAULT_LOOKBACK)
        return start, self._parsed("end", lambda text: golang.parse_int(text) * 1000, now)

    def flag(self, name: str) -> bool:
        """Return a truth value, false if absent."""
        return self._parsed(name, golang.parse_bool, default=False)

    def duration(self, name: str) -> int:
        """Return a Go duration such as ``10ms`` in nanoseconds, 0 if absent."""
        return self._parsed(name, golang.parse_duration, 0)

    def _parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self.text(name)
        try:
            return parse(text) if text else default
        except ValueError as error:
            raise BadQueryError(f"unable to parse param '{name}': {error}") from error

    def limit(self) -> int:
        """Return how many traces are asked for."""
        text = self.text("limit")
        try:
            return golang.parse_int(text, bits=32) if text else _DEFAULT_LIMIT
        except ValueError as error:
            raise BadQueryError(str(error)) from error

    def _tags(self) -> dict[str, str]:
        tags: dict[str, str] = {}
        for pair in self._query.getlist("tag"):
            key, colon, value = pair.partition(":")
            if not colon:
                raise BadQueryError(f"malformed 'tag' parameter, expecting key:value, received: {pair}")
            tags[key] = value
        for document in self._query.getlist("tags"):
            try:
                tags |= golang.parse_string_map(document)
            except ValueError as error:
                raise BadQueryError(f"malformed 'tags' parameter, cannot unmarshal JSON: {error}") from error
        return tags
