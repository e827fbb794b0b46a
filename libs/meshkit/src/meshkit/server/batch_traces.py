"""The server's spans of a batch RPC (`meshkit.batch_metadata`): its own, and one in the trace of each sampled member.

A member's is an internal span under the client's for that member, linked to the RPC's span. It ends with the RPC: what
became of this member alone is in the client's span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, Status, StatusCode, set_span_in_context

from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import Span, SpanContext, Tracer

    from meshkit.batch_metadata import Members


def links_to_others(members: Members | None) -> Sequence[Link]:
    """The links of the RPC's span: to all sampled members but the first, which is its parent."""
    return [Link(span) for span in members.sampled[1:]] if members else ()


def start_spans(tracer: Tracer, name: str, members: Members | None, rpc: SpanContext) -> Sequence[Span]:
    """The started spans of the sampled members of a batch."""
    if members is None:
        return ()
    attributes, links = {semconv.RPC_BATCH_SIZE: members.size}, [Link(rpc)]
    return [
        tracer.start_span(
            name, set_span_in_context(NonRecordingSpan(parent)), SpanKind.INTERNAL, attributes, links=links
        )
        for parent in members.sampled
    ]


def end_span(span: Span, code: str) -> None:
    """Ends a span of the server with the name of the RPC's status code."""
    span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, code)
    if code in semconv.SERVER_ERRORS:
        span.set_attribute(semconv.ERROR_TYPE, code)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
