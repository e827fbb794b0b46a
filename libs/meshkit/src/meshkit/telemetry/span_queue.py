"""The queue of encoded spans and the thread that sends them in batches.

It replaces the SDK's BatchSpanProcessor, which needs three calls for each span. A full batch is sent at once, an
incomplete one after a delay. https://opentelemetry.io/docs/specs/otel/trace/sdk/#batching-processor.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakMethod

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from meshkit.telemetry.encoding import EndedSpan

log = logging.getLogger("meshkit.telemetry")


class SpanQueue:
    """Spans that wait to be sent. Its thread starts with it and ends with `close`.

    Args:
        encode: encodes an ended span.
        send: sends a batch. One thread at a time calls it. What it raises is logged.
        size: the maximum number of spans that wait.
        batch_size: the maximum number of spans in a batch.
        delay: the maximum time that a span waits for others, in seconds.
    """

    def __init__(
        self,
        encode: Callable[[ReadableSpan], EndedSpan],
        send: Callable[[Sequence[EndedSpan]], None],
        *,
        size: int,
        batch_size: int,
        delay: float,
    ) -> None:
        self._encode, self._send = encode, send
        self._size, self._batch_size, self._delay = size, batch_size, delay
        self._spans: deque[EndedSpan] = deque()
        self._is_closed = False
        self._start()
        start = WeakMethod(self._start)
        os.register_at_fork(after_in_child=lambda: method() if (method := start()) else None)

    def _start(self) -> None:
        """Starts the thread. In the child of a fork it starts another, and leaves the spans to the parent."""
        self._spans.clear()
        self._wake, self._sending = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="export of spans", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """The number of spans that wait."""
        return len(self._spans)

    def put(self, span: ReadableSpan) -> bool:
        """Adds a span; returns False if there is no room for it. Never waits."""
        waiting = len(self._spans)
        if waiting >= self._size:
            return False
        self._spans.append(self._encode(span))
        if waiting + 1 >= self._batch_size and not self._wake.is_set():
            self._wake.set()
        return True

    def flush(self, *, only_full: bool = False) -> None:
        """Sends the spans that are queued now, or only the full batches of them, in the caller's thread."""
        with self._sending:
            token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # sending makes no spans
            waiting = len(self._spans)
            if only_full:
                waiting -= waiting % self._batch_size
            for start in range(0, waiting, self._batch_size):
                batch = [self._spans.popleft() for _ in range(min(waiting - start, self._batch_size))]
                try:
                    self._send(batch)
                except Exception:
                    log.exception("%d spans are lost", len(batch))
            detach(token)

    def close(self) -> None:
        """Sends what waits and ends the thread."""
        self._is_closed = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed:
            is_full = self._wake.wait(self._delay)
            self._wake.clear()
            self.flush(only_full=is_full)
        self.flush()
