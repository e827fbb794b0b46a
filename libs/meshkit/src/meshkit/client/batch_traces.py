"""The spans of lookups that travel together.

The RPC of a batch is one client span, under the span of its first sampled member and linked to those of the others.
Each sampled member has an internal span in its own trace, from its request to its own outcome, linked to the RPC. The
server adds its part by `meshkit.batch_metadata`. A member that is not sampled has no span and counts in the size.

A lookup that travels alone has no span but that of its RPC. One that ends before its call began has an internal span
without a link.
"""

from __future__ import annotations

import time
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context

from meshkit.batch_metadata import Members, write_members
from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Span, SpanContext, Tracer
    from opentelemetry.util.types import AttributeValue


class MemberTrace:
    """The span of one lookup.

    Args:
        context: has the span's parent.
        tracer: creates the span.
        name: the name of the span, such as `aiomesh.pricing.v1.PricingService/GetPrice`.

    Attributes:
        span: None until it is started.
    """

    __slots__ = ("_context", "_name", "_start", "_tracer", "span")

    def __init__(self, context: TraceContext, tracer: Tracer, name: str) -> None:
        self._tracer = tracer
        self._name = name
        self._context = context
        self._start = time.time_ns()
        self.span: Span | None = None

    def start(self, attributes: Mapping[str, AttributeValue] | None = None) -> Span:
        """Starts the span, as of the time when this object was created."""
        self.span = self._tracer.start_span(
            self._name, self._context, SpanKind.INTERNAL, attributes, start_time=self._start
        )
        return self.span

    def context(self) -> TraceContext:
        """The context of calls that are made for this lookup alone."""
        return set_span_in_context(self.span, self._context) if self.span else self._context

    def end(self, code: str, details: str | None = None) -> None:
        """Ends the span with the name of a gRPC status code, as a client span ends. Starts it if that is missing."""
        span = self.span or self.start()
        span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, code)
        if code in semconv.CLIENT_ERRORS:
            span.set_attribute(semconv.ERROR_TYPE, code)
            span.set_status(Status(StatusCode.ERROR, details))
        span.end()


_batch: ContextVar[BatchTrace | None] = ContextVar("meshkit_batch", default=None)


def take_batch() -> BatchTrace | None:
    """The batch whose RPC is started in the current context, once; None for any other call."""
    if (batch := _batch.get()) is not None:
        _batch.set(None)  # not for calls that an interceptor of the RPC makes
    return batch


class BatchTrace:
    """The spans of the members of one batch, and what its RPC needs to know of them.

    Args:
        members: at least one, in the order of their requests. Their spans are started here.

    Attributes:
        links: those of the RPC's client span.
        metadata: that of the RPC.
    """

    def __init__(self, members: Sequence[MemberTrace]) -> None:
        attributes = {semconv.RPC_BATCH_SIZE: len(members)}
        spans = [member.start(attributes) for member in members]
        self._sampled = [span for span in spans if span.get_span_context().trace_flags.sampled]
        contexts = [span.get_span_context() for span in self._sampled]
        self._first = self._sampled[0] if self._sampled else spans[0]
        self.links = [Link(context) for context in contexts[1:]]
        self.metadata = (write_members(Members(len(members), contexts)),) if contexts else ()

    def run_context(self) -> Context:
        """A new context for the RPC, which has nothing of a member but the span that the RPC is under."""
        context = Context()
        context.run(_batch.set, self)
        context.run(otel_context.attach, set_span_in_context(self._first, otel_context.Context()))
        return context

    def link_to(self, rpc: SpanContext) -> None:
        """Links the members' spans to that of the RPC."""
        for span in self._sampled:
            span.add_link(rpc)
