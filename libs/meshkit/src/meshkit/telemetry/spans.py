"""The SDK's spans at less than half of their cost.

Samplers, ids, limits, processors and all rare methods are the SDK's. Most spans are plain: they have no events, their
attributes are texts and integers, and their links have no attributes. A plain span stores these values unchanged, and
is itself passed to the processors when it ends. When its attributes or links are read, or something is added that is
not plain, they are converted to the SDK's objects, which clean, shorten and drop.
https://opentelemetry.io/docs/specs/otel/trace/sdk/.
"""

from __future__ import annotations

import sys
from operator import attrgetter
from threading import RLock
from time import time_ns
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk import trace
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, TraceFlags

from meshkit.current_span import current_span_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry import trace as api
    from opentelemetry.context import Context
    from opentelemetry.sdk.util import BoundedList
    from opentelemetry.util.types import AnyValue, Attributes

    SdkFields: TypeAlias = tuple[BoundedAttributes, BoundedList[trace.Event], BoundedList[Link]]
    """The attributes, events and links of a span."""

FLAGS = [TraceFlags(flags) for flags in range(4)]
RANDOM = int(TraceFlags.RANDOM_TRACE_ID)
DROP, SAMPLE = Decision.DROP, Decision.RECORD_AND_SAMPLE
PLAIN = frozenset({str, int})
"""The types of plain attributes. Equal values of them have the same encoding, unlike 1 and True, or 0.0 and -0.0."""

UNSET = Status()
"""The status of every span without one."""


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
            tracer.__class__ = Tracer  # the SDK makes its tracers itself, and keeps a list of them
            own, limits = cast("Tracer", tracer), self._span_limits
            own.max_attributes = sys.maxsize if limits.max_span_attributes is None else limits.max_span_attributes
            own.max_links = sys.maxsize if limits.max_links is None else limits.max_links
        return tracer


class Tracer(trace.Tracer):
    """Starts spans in the order of https://opentelemetry.io/docs/specs/otel/trace/sdk/#sdk-span-creation."""

    max_attributes: int
    max_links: int

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
        flags = FLAGS[flags & RANDOM | (sampling.decision is SAMPLE)]
        own = SpanContext(trace_id, self.id_generator.generate_span_id(), False, flags, sampling.trace_state)
        end_metrics = self._tracer_metrics.start_span(parent, sampling.decision)
        if sampling.decision is DROP:
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
        return self.id_generator.generate_trace_id(), FLAGS[RANDOM if is_random else 0]


class Span(trace.Span):
    """A span of the SDK with the same fields, which a test compares.

    Attributes:
        plain_attributes: those of a plain span, not yet cleaned: names may be invalid, and texts above the limit.
        plain_links: the contexts of the links of a plain span.
    """

    _trace_config = None
    _context: SpanContext
    _record_end_metrics: Callable[[], None]

    # The SDK's properties are functions in Python; these do the same without a call.
    status = property(attrgetter("_status"))  # pyright: ignore[reportIncompatibleMethodOverride]
    name, kind = property(attrgetter("_name")), property(attrgetter("_kind"))  # pyright: ignore[reportIncompatibleMethodOverride]
    context, parent = property(attrgetter("_context")), property(attrgetter("_parent"))  # pyright: ignore[reportIncompatibleMethodOverride]
    start_time, end_time = property(attrgetter("_start_time")), property(attrgetter("_end_time"))  # pyright: ignore[reportIncompatibleMethodOverride]

    # What is the same for all spans of a tracer.
    _sampler, _limits = property(attrgetter("_tracer.sampler")), property(attrgetter("_tracer._span_limits"))
    max_text_length = property(attrgetter("_tracer._span_limits.max_span_attribute_length"))
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
        self._span_processor = tracer.span_processor
        self._start_time = time_ns() if start_time is None else start_time
        self._end_time: int | None = None
        self._status = UNSET
        self._record_exception = record_exception
        self._set_status_on_exception = set_status
        self._record_end_metrics = end_metrics
        self._lock = RLock()  # type: ignore[assignment] # the SDK's methods read the fields while they hold it
        self._sdk_fields: SdkFields | None = None
        self.plain_links: list[SpanContext] = []
        self.plain_attributes: dict[str, Any] = {**attributes} if attributes and self._are_plain(attributes) else {}
        if attributes and not self.plain_attributes:
            super().set_attributes(attributes)
        if links:
            self._set_links(links)

    @property
    def is_plain(self) -> bool:
        """Whether nobody has needed the SDK's attributes, events or links."""
        return self._sdk_fields is None

    @property
    def _attributes(self) -> BoundedAttributes:  # type: ignore[override]
        return self._make_sdk_fields()[0]

    @property
    def _events(self) -> Sequence[trace.Event]:  # type: ignore[override]
        return self._make_sdk_fields()[1]

    @property
    def _links(self) -> Sequence[Link]:  # type: ignore[override]
        return self._make_sdk_fields()[2]

    def get_span_context(self) -> SpanContext:
        """Its context."""
        return self._context

    def set_attribute(self, key: str, value: AnyValue) -> None:
        """Sets an attribute, unless the span has ended."""
        if type(key) is not str or not self._set_plain(key, value):
            super().set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Sets attributes, unless the span has ended."""
        for key, value in attributes.items():
            if not self._set_plain(key, value):
                super().set_attributes({key: value})

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Adds a link, unless the span has ended."""
        with self._lock:
            own = self.plain_links
            can_be_plain = not (attributes or self._sdk_fields or self._end_time is not None)
            if can_be_plain and context.is_valid and len(own) < self._tracer.max_links:
                own.append(context)
                return
        super().add_link(context, attributes)

    def end(self, end_time: int | None = None) -> None:
        """Ends the span, unless it has ended."""
        with self._lock:
            if self._end_time is not None:
                super().end(end_time)  # which warns
                return
            self._end_time = time_ns() if end_time is None else end_time
            if self._sdk_fields:
                self._sdk_fields[0]._immutable = True  # noqa: SLF001
        self._record_end_metrics()
        self._span_processor._on_ending(self)  # noqa: SLF001
        self._span_processor.on_end(self)

    def _are_plain(self, attributes: Mapping[str, AnyValue]) -> bool:
        has_room = len(attributes) <= self._tracer.max_attributes
        return has_room and PLAIN.issuperset(map(type, attributes.values()))  # pyright: ignore[reportArgumentType]

    def _set_plain(self, key: str, value: AnyValue) -> bool:
        """Sets an attribute if it and the span are plain; tells whether it did."""
        with self._lock:
            own = self.plain_attributes
            can_be_plain = type(value) in PLAIN and not (self._sdk_fields or self._end_time is not None)
            if can_be_plain and len(own) < self._tracer.max_attributes:
                own.pop(key, None)  # because the last to be set is the last to be dropped
                own[key] = value
                return True
        return False

    def _set_links(self, links: Sequence[Link]) -> None:
        contexts = [link.context for link in links if link.context.is_valid and not link.attributes]
        if not self._sdk_fields and len(contexts) == len(links) <= self._tracer.max_links:
            self.plain_links = contexts
        else:
            attributes, events, _ = self._make_sdk_fields()
            self._sdk_fields = attributes, events, self._new_links(links)

    def _make_sdk_fields(self) -> SdkFields:
        with self._lock:
            if not self._sdk_fields:
                attributes = BoundedAttributes(
                    self._limits.max_span_attributes,
                    self.plain_attributes,
                    immutable=self._end_time is not None,
                    max_value_len=self._limits.max_span_attribute_length,
                )
                events = self._new_events()  # type: ignore[no-untyped-call]
                self._sdk_fields = attributes, events, self._new_links([*map(Link, self.plain_links)])
            return self._sdk_fields

    def _readable_span(self) -> trace.ReadableSpan:
        return self
