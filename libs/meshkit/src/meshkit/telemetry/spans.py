"""The SDK's spans at less than half of their cost.

Samplers, ids, limits, processors and all rare methods are the SDK's. A span copies plain attributes as they are, has
lists of events and links only once it has one, plain lists of plain links, and is itself what processors get at its
end. https://opentelemetry.io/docs/specs/otel/trace/sdk/.
"""

from __future__ import annotations

from operator import attrgetter
from threading import Lock
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk import trace
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, TraceFlags

from meshkit.current_span import current_span_context
from meshkit.telemetry.attributes import SpanAttributes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry import trace as api
    from opentelemetry.context import Context
    from opentelemetry.util.types import Attributes

FLAGS = [TraceFlags(flags) for flags in range(4)]
NO_ATTRIBUTES = BoundedAttributes()
"""Those of every link without attributes."""


class TracerProvider(trace.TracerProvider):
    """The SDK's provider, whose tracers start the spans of this module."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> api.Tracer:
        """The tracer of a scope; one that does nothing if the SDK is disabled."""
        tracer = super().get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        if isinstance(tracer, trace.Tracer):
            tracer.__class__ = Tracer  # it differs in one method, and the SDK keeps a list of its tracers
        return tracer


class Tracer(trace.Tracer):
    """Starts spans in the order of https://opentelemetry.io/docs/specs/otel/trace/sdk/#sdk-span-creation."""

    def start_span(  # noqa: PLR0917 - the API's signature
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
    ) -> api.Span:
        """A span, which records if the sampler says so. The current span of the context is its parent."""
        current = current_span_context(context)
        if not self._is_enabled():
            return NonRecordingSpan(current)
        trace_id, _, _, flags, _, is_valid = current  # a context's properties are functions in Python
        parent = current if is_valid else None
        if not parent:
            trace_id, flags = self._new_trace()
        sampling = self.sampler.should_sample(context, trace_id, name, kind, attributes, links or ())
        flags = FLAGS[flags & TraceFlags.RANDOM_TRACE_ID | (sampling.decision is Decision.RECORD_AND_SAMPLE)]
        own = SpanContext(trace_id, self.id_generator.generate_span_id(), False, flags, sampling.trace_state)
        end_metrics = self._tracer_metrics.start_span(parent, sampling.decision)
        if sampling.decision is Decision.DROP:
            return NonRecordingSpan(own)
        span: Span = object.__new__(Span)  # a call of the class takes twice the time
        span.set_up(
            self,
            name,
            own,
            parent,
            kind=kind,
            attributes=sampling.attributes,
            links=links,
            start_time=start_time,
            record_exception=record_exception,
            set_status=set_status_on_exception,
            end_metrics=end_metrics,
        )
        self.span_processor.on_start(span, parent_context=context)
        return span

    def _new_trace(self) -> tuple[int, TraceFlags]:
        """The id of a trace that begins, and its flags."""
        is_random = self.id_generator.is_trace_id_random()
        return self.id_generator.generate_trace_id(), FLAGS[TraceFlags.RANDOM_TRACE_ID if is_random else 0]


class Span(trace.Span):
    """A span of the SDK with the same fields, which a test compares; the constructor takes what its tracer knows."""

    _trace_config = None
    _status = Status()
    _events: Any = ()
    _links: Any = ()
    _attributes: SpanAttributes
    _context: SpanContext
    _start_time: int | None = None
    _end_time: int | None = None

    # The SDK's properties are functions in Python; these do the same without a call.
    name, kind = property(attrgetter("_name")), property(attrgetter("_kind"))  # pyright: ignore[reportIncompatibleMethodOverride]
    context, parent = property(attrgetter("_context")), property(attrgetter("_parent"))  # pyright: ignore[reportIncompatibleMethodOverride]
    start_time, end_time = property(attrgetter("_start_time")), property(attrgetter("_end_time"))  # pyright: ignore[reportIncompatibleMethodOverride]
    # Without a copy, so only when it has ended: another thread may change them before.
    ended_attributes, longest_text = (
        property(attrgetter("_attributes._dict")),
        property(attrgetter("_attributes.max_value_len")),
    )

    # What is the same for all spans of a tracer.
    _sampler, _limits = property(attrgetter("_tracer.sampler")), property(attrgetter("_tracer._span_limits"))
    _instrumentation_info = property(attrgetter("_tracer.instrumentation_info"))
    _resource = resource = property(attrgetter("_tracer.resource"))  # pyright: ignore[reportIncompatibleMethodOverride]
    _instrumentation_scope = instrumentation_scope = property(attrgetter("_tracer._instrumentation_scope"))  # pyright: ignore[reportIncompatibleMethodOverride]

    def set_up(
        self,
        tracer: Tracer,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        *,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link] | None,
        start_time: int | None,
        record_exception: bool,
        set_status: bool,
        end_metrics: Callable[[], None],
    ) -> None:
        """Makes it a span that has started."""
        self._tracer = tracer
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = SpanAttributes(attributes, tracer._span_limits)  # noqa: SLF001
        if links:
            self._links = self._new_links(links)
        self._span_processor = tracer.span_processor
        self._start_time = time_ns() if start_time is None else start_time
        self._record_exception = record_exception
        self._set_status_on_exception = set_status
        self._record_end_metrics = end_metrics
        self._lock = Lock()

    @property
    def is_plain(self) -> bool:
        """Whether it has neither a status nor events, and nothing was dropped."""
        return not (
            self._events
            or self._attributes.dropped
            or type(self._links) is BoundedList
            or self._status is not Span._status
        )

    @property
    def links(self) -> Sequence[Link]:
        """Its links."""
        return tuple(self._links)

    def get_span_context(self) -> SpanContext:
        """Its context."""
        return self._context

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Adds an event, unless the span has ended."""
        if type(self._events) is tuple:
            self._events = self._new_events()  # type: ignore[no-untyped-call]
        super().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Adds a link, unless the span has ended."""
        if attributes or not context.is_valid or not self._has_room(len(self._links) + 1):
            if not isinstance(self._links, BoundedList):
                self._links = BoundedList.from_seq(self._limits.max_links, self._links)
            super().add_link(context, attributes)
            return
        link = Link(context, NO_ATTRIBUTES)
        with self._lock:
            if self._end_time is None:
                self._links = self._links or []
                self._links.append(link)
                return
        super()._add_link(link)  # which warns, because the span has ended

    def _new_links(self, links: Sequence[Link]) -> Any:
        if any(link.attributes or not link.context.is_valid for link in links) or not self._has_room(len(links)):
            return super()._new_links(links)
        for link in links:
            link._attributes = NO_ATTRIBUTES  # noqa: SLF001 - as the SDK's does
        return [*links]

    def _has_room(self, links: int) -> bool:
        """Whether a span may have this number of links. The SDK's list drops the others and counts them."""
        return self._limits.max_links is None or links <= self._limits.max_links

    def _readable_span(self) -> trace.ReadableSpan:
        return self
