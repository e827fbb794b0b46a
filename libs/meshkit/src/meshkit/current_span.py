"""The context of the current span, for what asks for it with every request, span or log line.

OpenTelemetry's `get_current_span` also checks the type of what it finds, which takes longer than to find it.
"""

from __future__ import annotations

from opentelemetry.context import Context, get_current
from opentelemetry.trace import INVALID_SPAN, INVALID_SPAN_CONTEXT, SpanContext, set_span_in_context

_KEY = next(iter(set_span_in_context(INVALID_SPAN, Context())))


def current_span_context(context: Context | None = None) -> SpanContext:
    """That of the span in `context`, or in the current context; an invalid one if there is no span."""
    span = (get_current() if context is None else context).get(_KEY)
    return INVALID_SPAN_CONTEXT if span is None else span.get_span_context()  # type: ignore[attr-defined]
