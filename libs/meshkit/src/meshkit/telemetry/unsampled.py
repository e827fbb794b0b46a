"""Work that makes no trace, such as polling which usually finds nothing to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

if TYPE_CHECKING:
    from collections.abc import Iterator

_IDS = RandomIdGenerator()


@contextmanager
def unsampled() -> Iterator[None]:
    """Within the block, a trace is current that is not sampled.

    Calls carry it as any other trace (W3C Trace Context, section 2.2.5, the sampled flag), and the processes that they
    reach follow it, unless their sampler is not one that asks the parent (`OTEL_TRACES_SAMPLER=parentbased_…`).
    """
    trace = SpanContext(_IDS.generate_trace_id(), _IDS.generate_span_id(), False, TraceFlags(TraceFlags.DEFAULT))
    with use_span(NonRecordingSpan(trace)):
        yield
