"""Logs are JSON, one object per line, and name their trace."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

from meshkit.logs import JsonFormatter, JsonHandler, configure_logs, log_line
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


@contextmanager
def only_handler() -> Iterator[JsonHandler]:
    """The process's handler, as the only one of `log`. A test enters it, because pytest adds handlers just before."""
    handler = next(each for each in logging.getLogger().handlers if isinstance(each, JsonHandler))
    others, log.handlers[:] = log.handlers[:], [handler]
    log.propagate = False
    yield handler
    log.handlers[:] = others
    log.propagate = True


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


def test_a_record_has_no_control_characters() -> None:
    controls = "".join(map(chr, [*range(32), *range(127, 160)]))
    line = JsonFormatter("shop").format(logging.makeLogRecord({"name": "shop", "msg": controls}))
    assert line.isprintable()
    assert json.loads(line)["message"] == controls


def test_python_warnings_and_fatal_exceptions_are_json_lines() -> None:
    program = """
import warnings
from meshkit.logs import JsonFormatter, configure_logs
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


def test_grpc_is_heard_but_not_on_calls_that_have_ended(logged: Callable[[], Lines]) -> None:
    grpc_log = logging.getLogger("grpc._cython.cygrpc")
    grpc_log.error("ExecuteBatchError raised in core by servicer method [%s]", "/shop/Sell")
    grpc_log.error("Unexpected [%s] raised by servicer method [%s]", "LookupError", "/shop/Sell")
    assert [line["message"] for line in logged()] == ["Unexpected [LookupError] raised by servicer method [/shop/Sell]"]


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
    log.info("never", extra={"ratio": float("nan"), "ratios": [float("inf")], "by_pair": {(1, 2): 3}})
    until, never = logged()
    assert (until["expire_time"], until["error"]) == ("2026-01-01 00:00:00+00:00", "no")
    assert (never["ratio"], never["ratios"], never["by_pair"]) == ("nan", "[inf]", "{(1, 2): 3}")


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


FIELDS: dict[str, object] = {
    "path": "/v1/products/\x7f\u2028\n",
    "status": 200,
    "duration_ms": 1.25,
    "infinite": float("inf"),
    '%s of "all"': "%d",
    "strict": True,
    "missing": None,
    "checks": ["database"],
    "expire_time": datetime(2026, 1, 1, tzinfo=UTC),
}


def test_a_line_without_a_record_is_the_line_of_its_record(logged: Callable[[], Lines]) -> None:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("shop").start_as_current_span("sell")
    with only_handler(), span:
        log.info("%s %s", "GET", 200, extra=FIELDS)
        log_line(log, logging.INFO, "%s %s", "GET", 200, fields=FIELDS)
    first, second = logged()
    assert [first[name] for name in ("path", '%s of "all"')] == ["/v1/products/\x7f\u2028\n", "%d"]
    assert list(first) == list(second)  # the order, too
    assert datetime.fromisoformat(first.pop("time")) <= datetime.fromisoformat(second.pop("time"))
    assert first == second


def test_a_line_without_arguments_is_its_message(logged: Callable[[], Lines]) -> None:
    with only_handler():
        log_line(log, logging.INFO, "100% sold", fields={})
    assert [line["message"] for line in logged()] == ["100% sold"]


def test_a_line_makes_no_record(logged: Callable[[], Lines], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[logging.LogRecord] = []
    with only_handler() as handler, monkeypatch.context() as patch:
        patch.setattr(handler, "handle", made.append)
        log_line(log, logging.WARNING, "sold", fields={})
    assert [(line["message"], line["level"]) for line in logged()] == [("sold", "WARNING")]
    assert made == []


def test_a_line_below_the_level_is_left_out(logged: Callable[[], Lines]) -> None:
    with only_handler():
        log_line(log, logging.DEBUG, "sold", fields={})
    assert logged() == []


def test_another_handler_gets_the_record_of_a_line(
    logged: Callable[[], Lines], caplog: pytest.LogCaptureFixture
) -> None:
    log_line(log, logging.INFO, "%s sold", 2, fields={"sku": "TEA-0001"})
    (record,) = caplog.records
    assert (record.msg, record.args, record.module) == ("%s sold", (2,), "test_logs")
    assert [(line["message"], line["sku"]) for line in logged()] == [("2 sold", "TEA-0001")]


def test_the_level_of_the_handler_applies_to_a_line(logged: Callable[[], Lines]) -> None:
    with only_handler() as handler:
        handler.setLevel(logging.ERROR)
        log_line(log, logging.INFO, "sold", fields={})
    assert logged() == []


@pytest.mark.parametrize("of", ["logger", "handler"])
def test_a_filter_applies_to_a_line(logged: Callable[[], Lines], of: str) -> None:
    reject = logging.Filter("nobody")
    with only_handler() as handler:
        filterer = handler if of == "handler" else log
        filterer.addFilter(reject)
        log_line(log, logging.INFO, "sold", fields={})
        filterer.removeFilter(reject)
    assert logged() == []


@pytest.mark.usefixtures("logged")
def test_a_line_that_cannot_be_written_fails_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    closed = StringIO()
    closed.close()
    with only_handler() as handler:
        handler.setStream(closed)
        log_line(log, logging.INFO, "sold", fields={})
    assert '"message": "sold"' in capsys.readouterr().err


async def test_the_lines_of_one_turn_of_the_loop_are_written_at_once_and_before_later_records(
    logged: Callable[[], Lines],
) -> None:
    with only_handler():
        for number in range(3):
            log_line(log, logging.INFO, "line %d", number, fields={})
        assert logged() == []
        await asyncio.sleep(0)
        assert [line["message"] for line in logged()] == ["line 0", "line 1", "line 2"]
        log_line(log, logging.INFO, "line 3", fields={})
        log.info("record")
    assert [line["message"] for line in logged()][3:] == ["line 3", "record"]


def test_no_line_is_lost_at_the_end_of_the_process() -> None:
    program = """
import asyncio, logging
from meshkit.logs import configure_logs, log_line
configure_logs("shop")
async def main():
    log_line(logging.getLogger("shop"), logging.INFO, "the last", fields={})
    raise SystemExit
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert '"message": "the last"' in ended.stderr


def test_an_extra_field_replaces_no_field_of_the_line(logged: Callable[[], Lines]) -> None:
    log.info("sold", extra={"service": "other", "level": 1, "time": "now"})
    (line,) = logged()
    assert (line["service"], line["level"]) == ("shop", "INFO")
    assert line["time"] != "now"


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
