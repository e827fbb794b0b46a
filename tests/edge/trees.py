"""The spans of a trace as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


def tree(spans: list[ReadableSpan], parent: int | None = None) -> list[Any]:
    """The spans below a parent, as `(service, name, children)`, sorted by name."""
    children = [span for span in spans if (span.parent.span_id if span.parent else None) == parent]
    return sorted(
        (span.resource.attributes["service.name"], span.name, tree(spans, span.context.span_id))
        for span in children
        if span.context
    )
