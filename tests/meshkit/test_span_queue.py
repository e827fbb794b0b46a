"""The queue sends full batches at once and the others after a delay, and a fork has its own."""

from __future__ import annotations

import queue
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan

from meshkit.telemetry.span_queue import SpanQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

BATCH, HOUR = 3, 3600.0


def named(name: str) -> ReadableSpan:
    return ReadableSpan(name)


def name_of(span: ReadableSpan) -> Any:
    return span.name


def span_queue(send: Callable[[Sequence[Any]], None], delay: float = HOUR, size: int = 100) -> SpanQueue:
    return SpanQueue(name_of, send, size=size, batch_size=BATCH, delay=delay)


def put(spans: SpanQueue, names: str) -> list[bool]:
    return [spans.put(named(name)) for name in names]


def test_a_full_batch_is_sent_at_once_and_the_rest_at_the_end() -> None:
    sent: queue.Queue[Sequence[Any]] = queue.Queue()
    spans = span_queue(sent.put)
    put(spans, "abcd")
    assert sent.get(timeout=30) == ["a", "b", "c"]
    spans.close()
    assert sent.get_nowait() == ["d"]
    assert sent.empty()


def test_a_span_waits_for_others_no_longer_than_the_delay() -> None:
    sent: queue.Queue[Sequence[Any]] = queue.Queue()
    spans = span_queue(sent.put, delay=0.01)
    put(spans, "a")
    assert sent.get(timeout=30) == ["a"]
    spans.close()


def test_a_span_without_room_is_not_added() -> None:
    sent: list[Sequence[Any]] = []
    spans = span_queue(sent.append, size=2)
    assert put(spans, "abc") == [True, True, False]
    assert len(spans) == 2
    spans.close()
    assert sent == [["a", "b"]]


def test_a_flush_ends_although_each_sending_makes_a_span() -> None:
    sent: list[Sequence[Any]] = []

    def send(batch: Sequence[Any]) -> None:
        sent.append(batch)
        put(spans, "x")

    spans = span_queue(send)
    put(spans, "a")
    spans.flush()
    assert sent == [["a"]]
    spans.close()
    assert sent == [["a"], ["x"]]


def test_a_batch_that_cannot_be_sent_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    sent: queue.Queue[Sequence[Any]] = queue.Queue()

    def send(batch: Sequence[Any]) -> None:
        if "a" in batch:
            raise OSError("no route")
        sent.put(batch)

    spans = span_queue(send)
    put(spans, "abcdef")  # its thread sends both batches
    assert sent.get(timeout=30) == ["d", "e", "f"]
    spans.close()
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("meshkit.telemetry", "3 spans are lost")


FORK = """
import os, sys
from opentelemetry.sdk.trace import ReadableSpan
from meshkit.telemetry.span_queue import SpanQueue

parent = os.getpid()
def send(batch):
    print("parent" if os.getpid() == parent else "child", *batch, flush=True)
spans = SpanQueue(lambda span: span.name, send, size=9, batch_size=9, delay=3600)
spans.put(ReadableSpan("a"))
if child := os.fork():
    os.waitpid(child, 0)
else:
    spans.put(ReadableSpan("b"))
spans.close()
"""


def test_the_child_of_a_fork_sends_only_its_own_spans() -> None:
    forking = [sys.executable, "-W", "ignore", "-c", FORK]  # newer versions of Python warn of a fork with threads
    result = subprocess.run(forking, capture_output=True, check=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("child b\nparent a\n", "")
