"""The spans that have started and not yet ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import SpanProcessor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class OpenSpans(SpanProcessor):
    """The open spans of the tracer providers that have it as a processor. Spans start and end in several threads."""

    def __init__(self) -> None:
        self._by_id: dict[int, ReadableSpan] = {}

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._by_id.values())

    def on_start(self, span: Any, parent_context: object = None) -> None:
        self._by_id[span.context.span_id] = span

    def on_end(self, span: ReadableSpan) -> None:
        if span.context:
            self._by_id.pop(span.context.span_id, None)

    async def until_ended(self) -> None:
        """Waits until every span has ended; that of a server ends after its client has the response."""
        while self._by_id:
            await asyncio.sleep(0.001)
