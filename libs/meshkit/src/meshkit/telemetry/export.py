"""Exports ended spans in batches, counts the lost ones, and logs each problem once.

OpenTelemetry's OTLP exporter logs every batch during an outage of the collector. Instead, this module logs one line at
the start of an outage, one at its end, and one when a collector first rejects spans of an export that it accepts. If
spans were lost, a last line at shutdown has their number and the reasons. A span with a value that cannot be encoded
loses that value only (`repair.py`).

Nothing waits for the collector: if the queue is full (OTEL_BSP_MAX_QUEUE_SIZE), a span is dropped, and a shutdown takes
at most FLUSH_SECONDS.
"""

from __future__ import annotations

import logging
import os
import threading
from itertools import count
from typing import TYPE_CHECKING

import grpc
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
)
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import TraceFlags

from meshkit.telemetry.endpoints import exporter_options
from meshkit.telemetry.span_queue import SpanQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from meshkit.telemetry import otlp
    from meshkit.telemetry.encoding import EncodedSpans, EndedSpan

log = logging.getLogger("meshkit.telemetry")

FLUSH_SECONDS = 5.0
"""How long a shutdown waits for the last exports."""

QUEUE_SIZE = 2048
"""The maximum number of spans that wait to be exported, unless OTEL_BSP_MAX_QUEUE_SIZE is set."""

BATCH_SIZE = 512
"""The maximum number of spans in a batch, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE is set."""

DELAY = 5000
"""The maximum time that a span waits for others, in milliseconds, unless OTEL_BSP_SCHEDULE_DELAY is set."""


class SpanExport(SpanProcessor):
    """Queues ended spans for an exporter, which runs in a thread of its own, and counts all of them."""

    def __init__(self, exporter: otlp.SpanExporter) -> None:
        from meshkit.telemetry.encoding import encode  # noqa: PLC0415 - costs 50 ms

        self._delivery = _Delivery(exporter)
        size = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, QUEUE_SIZE))
        self._queue = SpanQueue(
            encode,
            self._delivery.export,
            size=size,
            batch_size=int(os.environ.get(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, min(BATCH_SIZE, size))),
            delay=int(os.environ.get(OTEL_BSP_SCHEDULE_DELAY, DELAY)) / 1000,
        )
        self._started = count()  # `next` adds one, in any thread
        self._lock = threading.Lock()
        self._closed = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Counts a span, if it is sampled."""
        if span.get_span_context()[3] & TraceFlags.SAMPLED:  # `trace_flags` is a function in Python
            next(self._started)

    def on_end(self, span: ReadableSpan) -> None:
        """Encodes a span and queues it for export, or drops it if the queue is full. Never waits."""
        context = span.context
        if context is None or not context[3] & TraceFlags.SAMPLED or self._closed:
            return
        if not self._queue.put(span):
            with self._lock:
                self._delivery.dropped += 1

    def force_flush(self, timeout_millis: int | None = None) -> bool:  # noqa: ARG002 - the SDK's signature
        """Exports the spans that are queued now."""
        if self._closed:
            return False
        self._queue.flush()
        return True

    def shutdown(self) -> None:
        """Exports the queued spans, for at most FLUSH_SECONDS, and logs the lost ones. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        alarm = threading.Timer(FLUSH_SECONDS, self._delivery.shutdown)
        alarm.daemon = True
        alarm.start()
        self._queue.close()
        alarm.cancel()
        alarm.join()
        self._delivery.shutdown()
        self._log_losses()

    def _log_losses(self) -> None:
        delivery, started, left = self._delivery, next(self._started), len(self._queue)
        lost = {
            f"not delivered ({delivery.reason})": delivery.sent - delivery.delivered - delivery.rejected + left,
            f"rejected by the collector ({delivery.rejection})": delivery.rejected,
            "dropped because the queue was full": delivery.dropped,
            "not ended at shutdown": started - delivery.sent - delivery.dropped - left,
        }
        if total := sum(lost.values()):
            parts = ", ".join(f"{spans} {why}" for why, spans in lost.items() if spans)
            log.warning("lost %d of %d spans: %s", total, started, parts, extra={"lost_spans": total})


class _Delivery:
    """Passes batches to the exporter, counts their spans, and logs when it starts to fail and when it recovers.

    Attributes:
        sent: the number of spans that the exporter was given.
        delivered: the number of spans that the collector accepted.
        rejected: the number of spans that the collector rejected from exports that it accepted.
        dropped: the number of spans that were dropped because the queue was full.
        reason: why the last export failed.
        rejection: why the collector last rejected spans.
    """

    def __init__(self, exporter: otlp.SpanExporter) -> None:
        self._exporter = exporter
        self._closed = False
        self._lost_before: int | None = None  # during an outage: the number of spans lost before it
        self._warned = False  # of a collector that accepts everything and has something to say
        self.sent = self.delivered = self.rejected = self.dropped = 0
        self.reason = self.rejection = ""

    def export(self, spans: Sequence[EndedSpan]) -> None:
        """Sends a batch, in as many requests as it needs."""
        from meshkit.telemetry.encoding import requests  # noqa: PLC0415 - costs 50 ms

        self.sent += len(spans)
        encoded = 0
        for request in requests(spans):
            self._send(request)
            encoded += request[1]
        if encoded < len(spans):
            self._record_failure(len(spans) - encoded, "a span cannot be encoded")

    def _send(self, request: EncodedSpans) -> None:
        spans = request[1]
        try:
            answer, failure = self._exporter.send(request), FAILURES.last
        except Exception as error:  # noqa: BLE001 - after any error the thread continues and the spans are lost
            answer, failure = None, repr(error)
        if answer is None:
            self._record_failure(spans, failure)
        else:
            self._record_success(spans, answer)

    def _record_success(self, spans: int, answer: otlp.Answer) -> None:
        rejected = min(max(answer.rejected, 0), spans)
        self.delivered += spans - rejected
        if self._lost_before is not None:
            lost = self._lost() - rejected - self._lost_before
            log.warning("spans are exported again; %d were lost", lost, extra={"lost_spans": lost})
            self._lost_before = None
        if rejected:
            self._record_rejection(rejected, answer.message or "no reason given")
        elif answer.message and not self._warned:
            self._warned = True
            log.info("the collector accepts spans with a warning: %s", answer.message)

    def _record_rejection(self, spans: int, message: str) -> None:
        if not self.rejected:
            log.warning("the collector rejected %d spans, which are lost: %s", spans, message)
        self.rejected += spans
        self.rejection = message

    def _record_failure(self, spans: int, failure: str) -> None:
        self.reason = failure
        if self._lost_before is None and not self._closed:
            self._lost_before = self._lost() - spans
            log.warning("spans cannot be exported and are lost: %s", failure)

    def _lost(self) -> int:
        return self.sent - self.delivered + self.dropped

    def shutdown(self) -> None:
        """Ends a running export; later exports fail at once."""
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()


class _Failures(logging.Filter):
    """Filters the log lines of failed exports: keeps the reason for spans, and passes only the first for metrics."""

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
    """A processor that exports by OTLP/gRPC to the endpoint in the standard OTEL_* variables."""
    from meshkit.telemetry import otlp  # noqa: PLC0415 - costs 50 ms

    filter_failures()
    return SpanExport(otlp.SpanExporter(**exporter_options("TRACES")))


def filter_failures() -> None:
    """Filters the log lines of all OTLP exporters of the process."""
    from opentelemetry.exporter.otlp.proto.grpc import exporter  # noqa: PLC0415 - costs 50 ms

    if FAILURES not in exporter.logger.filters:
        exporter.logger.filters.insert(0, FAILURES)  # before the library's own filter, which hides some of them
