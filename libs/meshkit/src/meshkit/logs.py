"""Logs as JSON lines, each with the trace and span it was written in.

One line is one object: time (RFC 3339, UTC), level, logger, message, service, trace_id and span_id inside a span,
whatever `extra` was given, and exception for a traceback.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

if TYPE_CHECKING:
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

# gRPC's core writes lines of its own, and not as JSON. It reads this once, when grpc is imported: a process that wants
# none of them but errors imports this module before anything that imports grpc.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logs(service: str, level: str = "INFO") -> None:
    """Sends all logs to standard error as JSON lines. Call it once, before the first channel or server is made.

    (grpc.aio can deadlock with a logging configuration made while it runs: grpc/grpc#43421.)
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    for library, least in LEAST.items():
        logging.getLogger(library).setLevel(max(least, logging.getLogger().level))


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; values that JSON does not know are written as text."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "service": self._service,
            **_trace(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII, for not everyone ends a line at the same characters


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger("meshkit").critical("the process ends by an exception", exc_info=(kind, error, traceback))


def _trace() -> dict[str, str]:
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}
