"""The observed result of one call, and its faults."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry import trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.util.types import AttributeValue

    from meshkit.testing import SpanCapture
    from tests.conformance.table import Outcome

SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""The codes that make a server span an error; a client span is one with any code but OK.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/, likewise in the older conventions that contrib follows.
"""

METHOD = re.compile(r"/([A-Z][a-z]+[A-Z][a-z]+\d\d)\b")
"""A method of the table, at the end of its full name."""

NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class Fault(StrEnum):
    """A fault of a cell; the value is its sign in the document."""

    CRASHES = "X"
    HANGS = "H"
    BREAKS_THE_CALL = "B"
    NO_CLIENT_SPAN = "C"
    WRONG_CLIENT_STATUS = "c"
    NO_SERVER_SPAN = "S"
    WRONG_SERVER_STATUS = "s"
    SECOND_SPAN = "D"
    WRONG_PARENT = "P"
    SECOND_EXCEPTION = "E"
    HANDLER_NOT_BEGUN = "N"
    HANDLER_GOES_ON = "G"
    LOGS = "L"


@dataclass(frozen=True)
class Span:
    """The relevant attributes of an ended span. A missing id is 0."""

    trace_id: int
    span_id: int
    parent_id: int
    code: str
    is_error: bool
    exceptions: int


@dataclass(frozen=True)
class Observation:
    """The observed result of one call.

    Attributes:
        caller: how it ended for its caller: a status code, or the name of the exception.
        root: the caller's own span.
        client: the client spans that had ended after every expected event, or after the patience.
        server: the server spans, likewise.
        started: whether the handler received its first request.
        budget: the remaining seconds, by the handler's clock, when it had received its first request; otherwise 0.
        cancelled: whether the handler was cancelled.
        remaining: likewise, when it was cancelled.
        in_the_end: the number of client and server spans after the teardown.
        logged: the messages of asyncio, grpc and opentelemetry at WARNING or above.
    """

    caller: str
    root: Span
    client: tuple[Span, ...]
    server: tuple[Span, ...]
    started: bool
    budget: float
    cancelled: bool
    remaining: float
    in_the_end: tuple[int, int] = (0, 0)
    logged: tuple[str, ...] = ()


def faults(observation: Observation, expected: Outcome) -> frozenset[Fault]:
    """The faults of a call, compared with its expected outcome."""
    spans = (*observation.client, *observation.server)
    wrong = {
        Fault.BREAKS_THE_CALL: observation.caller not in expected.caller.split(" or "),
        Fault.NO_CLIENT_SPAN: len(observation.client) < (expected.client is not None),
        Fault.NO_SERVER_SPAN: len(observation.server) < (expected.server is not None),
        Fault.WRONG_CLIENT_STATUS: any(
            (span.code, span.is_error) != (expected.client, expected.client != "OK") for span in observation.client
        ),
        Fault.WRONG_SERVER_STATUS: any(
            (span.code, span.is_error) != (expected.server, expected.server in SERVER_ERRORS)
            for span in observation.server
        ),
        Fault.SECOND_SPAN: any(
            count > (code is not None)
            for count, code in zip(observation.in_the_end, (expected.client, expected.server), strict=True)
        ),
        Fault.WRONG_PARENT: any(span.trace_id != observation.root.trace_id for span in spans)
        or any(span.parent_id != observation.root.span_id for span in observation.client)
        or any(span.parent_id != client.span_id for span in observation.server for client in observation.client),
        Fault.SECOND_EXCEPTION: any(span.exceptions > 1 for span in spans),
        Fault.HANDLER_NOT_BEGUN: expected.started and not observation.started,
        Fault.HANDLER_GOES_ON: expected.cancelled and observation.started and not observation.cancelled,
        Fault.LOGS: bool(observation.logged),
    }
    return frozenset(fault for fault, is_so in wrong.items() if is_so)


def spans(capture: SpanCapture, kind: trace.SpanKind, method: str) -> tuple[Span, ...]:
    """The ended spans of a kind that name the method, or no method of the table."""
    return tuple(_span(span) for span in capture.spans() if span.kind is kind and is_about(span.name, method))


@contextmanager
def root(capture: SpanCapture) -> Iterator[Span]:
    """Opens the span of a caller."""
    with capture.telemetry.tracer_provider.get_tracer("test").start_as_current_span("caller") as span:
        context = span.get_span_context()
        yield Span(context.trace_id, context.span_id, 0, "", is_error=False, exceptions=0)


async def until(happened: Callable[[], bool], patience: float) -> None:
    """Waits for a condition, at most `patience` seconds.

    It looks every millisecond at first, and then less often, because many calls wait in vain at the same time.
    """
    pause = 0.001
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while not happened():
                await asyncio.sleep(pause)
                pause = min(pause * 1.2, 0.1)


class Listener(logging.Handler):
    """Records the warnings of asyncio, grpc, opentelemetry and Python itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in {"asyncio", "grpc", "opentelemetry", "py"}:
            self.lines.append(f"{record.name}: {record.getMessage()}")

    def about(self, method: str) -> tuple[str, ...]:
        """The lines that name the method, or no method of the table."""
        return tuple(line for line in self.lines if is_about(line, method))


def is_about(text: str, method: str) -> bool:
    methods = METHOD.findall(text)
    return not methods or method in methods


def _span(span: ReadableSpan) -> Span:
    context: Any = span.get_span_context()
    attributes = span.attributes or {}
    return Span(
        context.trace_id,
        context.span_id,
        span.parent.span_id if span.parent else 0,
        _code(attributes.get("rpc.response.status_code", attributes.get("rpc.grpc.status_code"))),
        is_error=span.status.status_code is trace.StatusCode.ERROR,
        exceptions=sum(event.name == "exception" for event in span.events),
    )


def _code(attribute: AttributeValue | None) -> str:
    """The name of a status code, which is a number in the older conventions."""
    return NAMES[attribute] if isinstance(attribute, int) else str(attribute)
