"""Logs as JSON lines, each with the trace and span it was written in.

One line is one object: time (RFC 3339, UTC), level, logger, message, service, trace_id and span_id inside a span,
the `extra` fields with other names, and exception for a traceback.

Lines come from `logging`, or, for each request and RPC, from `log_line`, which writes the same line to the same stream,
at the end of the turn of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONEncoder
from json.encoder import encode_basestring_ascii as _quote
from typing import TYPE_CHECKING, Any

from meshkit.current_span import current_span_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

LEAST = {
    "alembic": logging.WARNING,
    "opentelemetry.attributes": logging.ERROR,
    "opentelemetry.baggage": logging.ERROR,
    "opentelemetry.trace": logging.ERROR,
}
"""The levels from which on libraries are heard.

Below them is what our own lines say already, and warnings of what a client sent: baggage or trace state that is none, a
path too long for a span.
"""

CALL_HAS_ENDED = "ExecuteBatchError raised in core by servicer method"
"""How grpc.aio begins the line of a response for which its client no longer waits: the span and the log say it."""

# gRPC's core writes lines of its own, and not as JSON. It reads this once, when grpc is imported: a process that wants
# none of them but errors imports this module before anything that imports grpc.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

_OWN = frozenset({"time", "level", "logger", "message", "service", "trace_id", "span_id", "exception"})
_NO_EXTRA = _OWN | {"asctime", "taskName"} | vars(logging.makeLogRecord({})).keys()

_JSON = JSONEncoder(default=str, allow_nan=False)


def _encode(value: object) -> str:
    """The value as JSON; as text if JSON has no such value, as for NaN."""
    try:
        return _JSON.encode(value)
    except (TypeError, ValueError, RecursionError):
        return _quote(str(value))


_WRITERS: Mapping[type, Callable[[Any], str]] = {
    str: _quote,
    int: repr,
    float: lambda value: repr(value) if math.isfinite(value) else _encode(value),
}
"""What writes values of some types as `_encode` does, at a fraction of its cost."""


def configure_logs(service: str, level: str = "INFO") -> None:
    """Sends all logs to standard error as JSON lines. Call it once, before the first channel or server is made.

    (grpc.aio can deadlock with a logging configuration made while it runs: grpc/grpc#43421.)
    """
    logging.basicConfig(handlers=[JsonHandler(service)], level=level.upper(), force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
    for library, least in LEAST.items():
        logging.getLogger(library).setLevel(max(least, logging.getLogger().level))


def log_line(logger: logging.Logger, level: int, message: str, *args: object, fields: Mapping[str, object]) -> None:
    """Logs as `logger.log(level, message, *args, extra=fields)` does, at a fraction of its cost.

    A record of `logging` is made only if it would be filtered or passed to other handlers than one JsonHandler.
    """
    if not logger.isEnabledFor(level):
        return
    handler = _only_handler(logger)
    if handler and level >= handler.level:
        handler.write(level, logger.name, message % args if args else message, fields)
    else:
        logger.log(level, message, *args, extra=fields, stacklevel=2)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; values that JSON does not know are written as text."""
        fields = {name: value for name, value in vars(record).items() if name not in _NO_EXTRA}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return self.line(record.created, record.levelname, record.name, record.getMessage(), fields)

    def line(self, created: float, level: str, logger: str, message: str, fields: Mapping[str, object]) -> str:
        """One JSON object. `created` is in seconds since the epoch; `fields` have other names than the line's own."""
        values = [_WRITERS.get(type(value), _encode)(value) for value in fields.values()]
        template = _template(level, logger, self._service, *fields)
        line = template % (_time(created), _quote(message), _trace(), *values)
        # In ASCII, for not everyone ends a line at the same characters. JSON escapes all control characters but DEL.
        return line.replace("\x7f", "\\u007f") if "\x7f" in line else line


class JsonHandler(logging.StreamHandler):  # type: ignore[type-arg] # generic in the stubs only
    """Writes JSON lines to standard error."""

    def __init__(self, service: str) -> None:
        super().__init__(sys.stderr)
        self._formatter = JsonFormatter(service)
        self.setFormatter(self._formatter)
        self._lines: list[str] = []

    def write(self, level: int, logger: str, message: str, fields: Mapping[str, object]) -> None:
        """Writes a line without a record of `logging`: inside an event loop at the end of its turn, with the others."""
        line = self._formatter.line(time.time(), logging.getLevelName(level), logger, message, fields)
        with self.lock:  # type: ignore[union-attr] # every handler has one
            self._lines.append(line + self.terminator)
            is_first = len(self._lines) == 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            if is_first:
                loop.call_soon(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record of `logging`, after the lines before it."""
        self.flush()
        super().emit(record)

    def flush(self) -> None:
        """Writes the lines that wait."""
        with self.lock:  # type: ignore[union-attr] # every handler has one
            lines, self._lines = self._lines, []
            try:
                self.stream.write("".join(lines))
                self.stream.flush()
            except Exception:  # noqa: BLE001 - as logging's own handlers do
                self.handleError(logging.makeLogRecord({"name": __name__, "msg": "".join(lines)}))


def _only_handler(logger: logging.Logger) -> JsonHandler | None:
    """The JsonHandler that writes the logger's records, if nothing else filters or handles them."""
    handlers: list[logging.Handler] = []
    at: logging.Logger | None = logger
    while at is not None:
        handlers += at.handlers
        at = at.parent if at.propagate else None
    if len(handlers) == 1 and type(handlers[0]) is JsonHandler and not (handlers[0].filters or logger.filters):
        return handlers[0]
    return None


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(CALL_HAS_ENDED)


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger("meshkit").critical("the process ends by an exception", exc_info=(kind, error, traceback))


@lru_cache(maxsize=256)
def _template(level: str, logger: str, service: str, *names: str) -> str:
    """The lines with these fields, with `%s` for the time, the message, the trace, and the value of each field."""
    level, logger, service, *fields = (_quote(text).replace("%", "%%") for text in (level, logger, service, *names))
    others = "".join([f", {field}: %s" for field in fields])
    return f'{{"time": "%s", "level": {level}, "logger": {logger}, "message": %s, "service": {service}%s{others}}}'


def _time(created: float) -> str:
    second = int(created)
    return f"{_second(second)}.{int((created - second) * 1000):03d}+00:00"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _trace() -> str:
    trace_id, span_id, _, _, _, is_valid = current_span_context()
    return f', "trace_id": "{trace_id:032x}", "span_id": "{span_id:016x}"' if is_valid else ""
