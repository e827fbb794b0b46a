"""Logs are JSON, one object per line, and name their trace."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

from meshkit.logs import configure_logs
from tests.repository import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Lines = list[dict[str, Any]]

log = logging.getLogger("shop.till")


@pytest.fixture
def logged() -> Iterator[Callable[[], Lines]]:
    """Configures the logs as a process does; returns what was written to standard error."""
    root, stderr = logging.getLogger(), StringIO()
    handlers, level, excepthook = root.handlers[:], root.level, sys.excepthook
    root.handlers.clear()  # pytest's handlers, which configure_logs would close
    with redirect_stderr(stderr):
        configure_logs("shop", "info")
    yield lambda: [json.loads(line) for line in stderr.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook = excepthook


def test_each_record_is_one_object_on_one_line(logged: Callable[[], Lines]) -> None:
    log.info("sold %d of\n%s", 2, "TEA-0001")
    log.warning("none left · ende")
    first, second = logged()
    assert (first["message"], first["level"], first["logger"]) == ("sold 2 of\nTEA-0001", "INFO", "shop.till")
    assert (second["message"], second["level"], second["service"]) == ("none left · ende", "WARNING", "shop")


def test_a_record_has_no_unicode_line_breaks(logged: Callable[[], Lines]) -> None:
    """`str.splitlines` and some viewers also break lines at characters outside ASCII."""
    log.info("/v1/products/\r\x0b\x1c\x85\u2028\u2029")
    (line,) = logged()
    assert line["message"] == "/v1/products/\r\x0b\x1c\x85\u2028\u2029"


def test_python_warnings_and_fatal_exceptions_are_json_lines() -> None:
    program = """
import warnings
from meshkit.logs import configure_logs
configure_logs("shop")
warnings.warn("it is late")
raise LookupError("nothing left")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    warned, died = map(json.loads, done.stderr.splitlines())
    assert (warned["level"], "UserWarning: it is late" in warned["message"]) == ("WARNING", True)
    assert (died["level"], done.returncode) == ("CRITICAL", 1)
    assert died["exception"].endswith("LookupError: nothing left")


def test_invalid_baggage_of_a_client_is_not_a_warning(logged: Callable[[], Lines]) -> None:
    extract({"tracestate": "\xff==", "baggage": "\xff,=,;;;", "traceparent": f"00-{1:032x}-{1:016x}-01"})
    extract({"tracestate": "a=" + "b" * 9000, "traceparent": f"00-{1:032x}-{1:016x}-01"})
    assert logged() == []


def test_the_time_is_utc_with_its_offset(logged: Callable[[], Lines]) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # the log has whole milliseconds
    log.info("now")
    (line,) = logged()
    time = datetime.fromisoformat(line["time"])
    assert time.utcoffset() == timedelta(0)
    assert before <= time <= datetime.now(UTC)


def test_records_below_the_level_are_left_out(logged: Callable[[], Lines]) -> None:
    log.debug("how it came about")
    assert logged() == []


def test_a_record_inside_a_span_carries_its_trace_and_span(logged: Callable[[], Lines]) -> None:
    with TracerProvider(shutdown_on_exit=False).get_tracer("shop").start_as_current_span("sell") as span:
        log.info("inside")
    context = span.get_span_context()
    (line,) = logged()
    assert line["trace_id"] == format_trace_id(context.trace_id)
    assert line["span_id"] == format_span_id(context.span_id)
    assert (len(line["trace_id"]), len(line["span_id"])) == (32, 16)


def test_a_record_outside_of_spans_carries_no_trace(logged: Callable[[], Lines]) -> None:
    log.info("outside")
    (line,) = logged()
    assert line.keys() == {"time", "level", "logger", "message", "service"}


def test_extra_fields_stand_beside_the_message(logged: Callable[[], Lines]) -> None:
    log.info("listening", extra={"port": 8080, "checks": ["database"]})
    (line,) = logged()
    assert (line["port"], line["checks"]) == (8080, ["database"])


def test_values_that_json_does_not_know_are_written_as_text(logged: Callable[[], Lines]) -> None:
    log.info("until", extra={"expire_time": datetime(2026, 1, 1, tzinfo=UTC), "error": ValueError("no")})
    (line,) = logged()
    assert (line["expire_time"], line["error"]) == ("2026-01-01 00:00:00+00:00", "no")


def test_an_exception_stays_on_the_line_of_its_record(logged: Callable[[], Lines]) -> None:
    error = LookupError("no such\nsku")
    log.error("failed", exc_info=error)
    (line,) = logged()
    assert line["message"] == "failed"
    assert line["exception"] == "LookupError: no such\nsku"


def test_libraries_log_only_warnings_and_errors(logged: Callable[[], Lines]) -> None:
    logging.getLogger("alembic.runtime.plugins").info("setup plugin")
    logging.getLogger("alembic.runtime.migration").warning("no such revision")
    assert [line["message"] for line in logged()] == ["no such revision"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_limits_grpc_logs_to_errors_before_it_imports_grpc(service: str) -> None:
    """GRPC reads the variable once, and writes lines that are not JSON."""
    program = f"""
import os, sys
def on_audit(event, arguments):
    if event == "import" and arguments[0] == "grpc._cython.cygrpc":
        print(os.environ.get("GRPC_VERBOSITY"))
sys.addaudithook(on_audit)
import {service}.__main__
"""
    environ = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"ERROR"}
