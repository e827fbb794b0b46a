"""meshkit's spans are those of the SDK in every respect but their cost."""

from __future__ import annotations

import itertools
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, sampling
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracer,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from meshkit.telemetry import configure, spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Span, Tracer

STATE = TraceState([("vendor", "a")])
PARENTS = [SpanContext(5, 6, remote, TraceFlags(flags), STATE) for remote in (True, False) for flags in range(4)]
NOBODY = SpanContext(0, 0, is_remote=False)
LIMITS = SpanLimits(
    max_events=2, max_links=2, max_span_attributes=4, max_event_attributes=1, max_link_attributes=1,
    max_span_attribute_length=5, max_attribute_length=3,
)  # fmt: skip

NOTHING = SpanLimits(max_events=0, max_links=0, max_span_attributes=0)


class Counting(IdGenerator):
    """Ids 1, 2, 3 …, which are not random."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    def generate_span_id(self) -> int:
        return next(self._ids)

    def generate_trace_id(self) -> int:
        return next(self._ids)


@dataclass
class Recorder(SpanProcessor):
    """A processor that changes spans at their start and end, and keeps what it sees."""

    seen: list[Any] = field(default_factory=list)
    ended: list[ReadableSpan] = field(default_factory=list)

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        span.set_attribute("at", "start")
        self.seen.append((span.name, span.is_recording(), parent_context))

    def _on_ending(self, span: sdk.Span) -> None:
        self.seen.append((span.name, span.is_recording(), span.end_time))

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


class Marking(sampling.Sampler):
    """Adds an attribute and a trace state; drops, records or samples by the name of the span."""

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        raise NotImplementedError

    def get_description(self) -> str:
        return "marking"


def marking(decision: Decision) -> Sampler:
    sampler = Marking()
    result = SamplingResult(decision, {"sampled.by": "me"}, TraceState([("own", "1")]))
    sampler.should_sample = lambda *_, **__: result  # type: ignore[method-assign]
    return sampler


def plain(tracer: Tracer) -> None:
    span = tracer.start_span("plain", kind=SpanKind.CLIENT, attributes={"a": 1, "b": "text"}, start_time=1)
    span.set_attribute("a", 2)
    span.set_attributes({"c": True, "d": 1.5})
    span.update_name("renamed")
    span.end(2)


def unclean_values(tracer: Tracer) -> None:
    values: dict[Any, Any] = {"list": ["longer than five", 1], "map": {"a": object()}, "none": None, "bytes": b"1"}
    span = tracer.start_span("values", attributes=values, start_time=1)
    values["list"].append("later")
    for key, value in (("", 1), (7, 1), ("text", "longer than five"), ("type", type)):
        span.set_attribute(key, value)  # type: ignore[arg-type]
    span.end(2)


def too_many_values(tracer: Tracer) -> None:
    span = tracer.start_span("many", attributes={str(number): number for number in range(6)}, start_time=1)
    span.set_attributes({"x": 1, "y": 2})
    span.set_attribute("x", 3)
    span.end(2)


def events_and_links(tracer: Tracer) -> None:
    links = [Link(parent, {"text": "longer than three", "more": 1}) for parent in (*PARENTS[:3], NOBODY)]
    span = tracer.start_span("lists", links=links, start_time=1)
    other = tracer.start_span("later", start_time=1)
    for number in range(3):
        other.add_link(PARENTS[number])
        other.add_link(NOBODY)
        other.add_event("event", {"text": "longer than three", "number": number}, timestamp=number)
    for each in (span, other):
        each.end(2)


def statuses(tracer: Tracer) -> None:
    values: list[Any] = [Status(StatusCode.OK), StatusCode.ERROR, Status(StatusCode.UNSET)]
    for first, second in itertools.product(values, repeat=2):
        span = tracer.start_span("status", start_time=1)
        span.set_status(first)
        span.set_status(second, "why")
        span.end(2)


def exceptions(tracer: Tracer) -> None:
    for flags in itertools.product((True, False), repeat=2):
        options: Any = dict(zip(("record_exception", "set_status_on_exception"), flags, strict=True))
        with suppress(LookupError), tracer.start_span("used", start_time=1, **options):
            raise LookupError("no tea")
        with suppress(LookupError), tracer.start_as_current_span("current", start_time=1, **options):
            tracer.start_span("child", start_time=1).end(2)
            raise LookupError("no tea")


def after_the_end(tracer: Tracer) -> None:
    span = tracer.start_span("ended", start_time=1)
    span.end(2)
    span.set_attribute("late", 1)
    span.set_attributes({"late": 1})
    span.add_event("late")
    span.add_link(PARENTS[0])
    span.set_status(StatusCode.ERROR)
    span.update_name("late")
    span.end(3)


def children(tracer: Tracer) -> None:
    for parent in (*PARENTS, NOBODY):
        context = set_span_in_context(NonRecordingSpan(parent))
        span = tracer.start_span("child", context, SpanKind.SERVER, {"a": 1}, start_time=1)
        span.set_attribute("context", repr(span.get_span_context())[:5])
        span.end(2)


DEEDS = [plain, unclean_values, too_many_values, events_and_links, statuses, exceptions, after_the_end, children]
SAMPLERS: list[Sampler] = [
    sampling.ALWAYS_ON,
    sampling.ALWAYS_OFF,
    sampling.DEFAULT_ON,
    sampling.DEFAULT_OFF,
    sampling.TraceIdRatioBased(0.0),
    *map(marking, Decision),
]


def record(provider: type[sdk.TracerProvider], deed: Callable[[Tracer], None], **options: Any) -> Recorder:
    recorder = Recorder()
    own = provider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False, **options)
    own.add_span_processor(recorder)
    deed(own.get_tracer("shop", "1", "https://schema.test", {"zone": "north"}))
    return recorder


def described(span: ReadableSpan) -> tuple[object, ...]:
    """All that a span has, without what differs in two runs: its end, and time and traceback of its exceptions."""
    events = [(e.name, dict(e.attributes or {}), e.dropped_attributes, e.timestamp) for e in span.events]
    return (
        (span.name, span.kind, span.start_time, span.context, span.parent),
        (span.status.status_code, span.status.description),
        ([*(span.attributes or {}).items()], span.dropped_attributes),
        ([comparable(*event) for event in events], span.dropped_events),
        ([(link.context, link.attributes, link.dropped_attributes) for link in span.links], span.dropped_links),
        (span.resource, span.instrumentation_scope),
    )


def comparable(name: str, attributes: dict[str, Any], dropped: int, timestamp: int) -> tuple[object, ...]:
    attributes.pop("exception.stacktrace", None)
    return name, attributes, dropped, None if name == "exception" else timestamp


@pytest.mark.parametrize("limits", [SpanLimits(), LIMITS, NOTHING], ids=["default limits", "small limits", "nothing"])
@pytest.mark.parametrize("deed", DEEDS)
def test_a_span_is_that_of_the_sdk(
    deed: Callable[[Tracer], None], limits: SpanLimits, caplog: pytest.LogCaptureFixture
) -> None:
    results = []
    for provider in (sdk.TracerProvider, spans.TracerProvider):
        recorder = record(provider, deed, id_generator=Counting(), span_limits=limits)
        logged = [(line.levelno, line.getMessage()) for line in caplog.records]
        results.append(([described(span) for span in recorder.ended], [seen[:2] for seen in recorder.seen], logged))
        caplog.clear()
    assert results[0] == results[1]
    assert results[0][0]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.get_description()[:30])
@pytest.mark.parametrize("deed", [plain, exceptions, children])
def test_samplers_decide_as_in_the_sdk(deed: Callable[[Tracer], None], sampler: Sampler) -> None:
    started: list[list[SpanContext]] = []

    def noting(tracer: Tracer) -> None:
        contexts: list[SpanContext] = []
        start = tracer.start_span

        def start_span(*arguments: Any, **options: Any) -> Span:
            span = start(*arguments, **options)
            contexts.append(span.get_span_context())
            return span

        tracer.start_span = start_span  # type: ignore[method-assign]
        deed(tracer)
        started.append(contexts)

    ended = [
        [described(span) for span in record(provider, noting, id_generator=Counting(), sampler=sampler).ended]
        for provider in (sdk.TracerProvider, spans.TracerProvider)
    ]
    assert ended[0] == ended[1]
    assert started[0] == started[1]


def test_a_span_has_the_fields_of_the_sdks_spans() -> None:
    """A field that a newer SDK adds would be missing."""
    fields = [
        {name for span in record(provider, plain).ended for name in dir(span)}
        for provider in (sdk.TracerProvider, spans.TracerProvider)
    ]
    live = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("shop").start_span("live")
    assert fields[0] | set(vars(live)) <= fields[1]


def test_a_new_trace_has_a_random_id() -> None:
    (span,) = record(spans.TracerProvider, plain).ended
    assert span.context
    assert span.context.trace_flags == TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID
    assert span.context.trace_id > 1 << 64


def test_the_disabled_sdk_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = configure("shop").tracer_provider.get_tracer("shop")
    assert isinstance(tracer, NoOpTracer)


def test_one_scope_has_one_tracer_and_its_spans_are_of_meshkit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    provider = configure("shop").tracer_provider
    assert provider.get_tracer("shop") is provider.get_tracer("shop")
    assert isinstance(provider.get_tracer("shop").start_span("sell"), spans.Span)
    assert caplog.records == []
