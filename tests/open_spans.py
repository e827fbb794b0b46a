"""The spans that have started and not yet ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import SpanProcessor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


@dataclass
class OpenSpans(SpanProcessor):
    """The open spans of the tracer providers that have it as a processor."""

    spans: set[ReadableSpan] = field(default_factory=set)

    def on_start(self, span: Any, parent_context: object = None) -> None:
        self.spans.add(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.spans = {other for other in self.spans if other.context != span.context}

    async def until_ended(self) -> None:
        """Waits until every span has ended; that of a server ends after its client has the response."""
        while self.spans:
            await asyncio.sleep(0.001)
