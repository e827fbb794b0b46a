"""Exports ended spans in batches, knows what became of each of them, and says so once.

Built on the SDK's BatchSpanProcessor and the OTLP exporter. Their own log lines come back with every batch as long as
a collector is away; here an outage is one line when it begins and one when it is over, and if anything was lost, the
last line of the process tells how much and why. Nobody waits for the collector: a span that finds the queue full is
dropped (OTEL_BSP_MAX_QUEUE_SIZE), and the end of the process waits for it no longer than FLUSH_SECONDS.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

import grpc
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

log = logging.getLogger("meshkit.telemetry")

FLUSH_SECONDS = 5.0
"""How long the end of the process waits for the last exports."""

QUEUE_SIZE = 2048
"""Spans that wait to be exported, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise."""

BATCH_SIZE = 256
"""Spans to a batch, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE says otherwise: even with all that a client may send in
paths, queries and trace state they make less than the 4 MiB that a collector takes."""


class SpanExport(SpanProcessor):
    """Queues ended spans for an exporter, which runs in a thread of its own, and counts all of them."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._delivery = _Delivery(exporter)
        self._room = _queue_size()
        batch = None if OTEL_BSP_MAX_EXPORT_BATCH_SIZE in os.environ else min(BATCH_SIZE, self._room)
        self._batches = BatchSpanProcessor(self._delivery, max_export_batch_size=batch)
        self._lock = threading.Lock()
        self._started = self._ended = 0
        self._closed = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Counts a span, if it is sampled."""
        with self._lock:
            self._started += _is_sampled(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Queues a span for export, or drops it where there is no room. Never waits."""
        if not _is_sampled(span) or self._closed:
            return
        with self._lock:
            self._ended += 1
            waiting = self._ended - self._delivery.refused - self._delivery.taken
            has_room = waiting <= self._room
            self._delivery.refused += not has_room
        if has_room:
            self._batches.on_end(span)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Exports what is queued now."""
        return self._batches.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Exports what is left, for FLUSH_SECONDS at most, and tells what was lost. A second one does nothing."""
        if self._closed:
            return
        self._closed = True
        alarm = threading.Timer(FLUSH_SECONDS, self._delivery.shutdown)
        alarm.daemon = True
        alarm.start()
        self._batches.shutdown()  # type: ignore[no-untyped-call]
        alarm.cancel()
        alarm.join()
        self._tell()

    def _tell(self) -> None:
        delivery = self._delivery
        lost = {
            f"not delivered ({delivery.reason})": self._ended - delivery.refused - delivery.delivered,
            "for want of room in the queue": delivery.refused,
            "not ended in time": self._started - self._ended,
        }
        if total := sum(lost.values()):
            parts = ", ".join(f"{spans} {why}" for why, spans in lost.items() if spans)
            log.warning("lost %d of %d spans: %s", total, self._started, parts, extra={"lost_spans": total})


class _Delivery(SpanExporter):
    """Gives batches to the real exporter, counts, and tells when it begins to fail and when it has recovered.

    Attributes:
        taken: spans that were given to the exporter.
        delivered: those of them that the collector has taken.
        refused: spans that found no room in the queue before it.
        reason: why the last export failed.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._closed = False
        self._lost_before: int | None = None  # while it fails: how many were lost before that
        self.taken = self.delivered = self.refused = 0
        self.reason = ""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result, failure = self._exporter.export(spans), FAILURES.last
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on and the spans are lost
            result, failure = SpanExportResult.FAILURE, repr(error)
        if result is SpanExportResult.SUCCESS:
            self._succeeded(len(spans))
        else:
            self._failed(len(spans), failure)
        return result

    def _succeeded(self, spans: int) -> None:
        self.delivered += spans
        if self._lost_before is not None:
            lost = self._lost() - self._lost_before
            log.warning("spans are exported again; %d were lost", lost, extra={"lost_spans": lost})
            self._lost_before = None

    def _failed(self, spans: int, failure: str) -> None:
        self.reason = failure
        if self._lost_before is None and not self._closed:
            self._lost_before = self._lost() - spans
            log.warning("spans cannot be exported and are lost: %s", failure)

    def _lost(self) -> int:
        return self.taken - self.delivered + self.refused

    def shutdown(self) -> None:
        """Ends the export that runs, if one does; those that come after it fail at once."""
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()


class _Failures(logging.Filter):
    """Takes the log lines of exports that fail: keeps the reason of spans, and lets the first of other signals pass."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""
        self._quiet = False

    def filter(self, record: logging.LogRecord) -> bool:
        arguments: list[object] = [*record.args] if isinstance(record.args, tuple) else []
        code = next((argument for argument in arguments if isinstance(argument, grpc.StatusCode)), None)
        if code is None:
            return not record.msg.startswith(NOISE)
        if "traces" in arguments:
            self.last = f"{code.name}: {arguments[-1]}"
            return False
        if self._quiet or record.msg.startswith("Transient"):
            return False
        self._quiet = True
        return True


NOISE = ("Shutdown in progress", "Exporter already shutdown")
FAILURES = _Failures()


def otlp_export() -> SpanExport:
    """Exports by OTLP/gRPC to where the standard OTEL_* variables say."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - costs 50 ms

    take_failures()
    return SpanExport(OTLPSpanExporter())


def take_failures() -> None:
    """Takes the log lines of all OTLP exporters of the process."""
    from opentelemetry.exporter.otlp.proto.grpc import exporter  # noqa: PLC0415 - costs 50 ms

    if FAILURES not in exporter.logger.filters:
        exporter.logger.filters.insert(0, FAILURES)  # before one of the library's own, which hides some of them


def _queue_size() -> int:
    try:
        return int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, QUEUE_SIZE))
    except ValueError:  # the SDK logs it
        return QUEUE_SIZE


def _is_sampled(span: ReadableSpan) -> bool:
    return bool(span.context and span.context.trace_flags.sampled)
