"""The HTTP routes for people: the page, and the summaries that its list shows."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from opentelemetry.proto.trace.v1.trace_pb2 import Status
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from tracebox.compact_json import dumps
from tracebox.jaeger import format_trace_id
from tracebox.outcome import outcome
from tracebox.parameters import InvalidQuery, read_summaries
from tracebox.search import find_traces
from tracebox.streaming import commas, stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from starlette.requests import Request

    from tracebox.outcome import Kind
    from tracebox.store import StoredSpan, Trace, TraceStore

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Summary(TypedDict):
    """One row of the list: `start` in Unix microseconds, `duration` in microseconds.

    `errors` and `clientErrors` count spans; a cancelled span is a client error. `outcome` and `status` are the root's.
    """

    traceID: str
    service: str
    operation: str
    start: int
    duration: int
    spans: int
    errors: int
    clientErrors: int
    outcome: Kind
    status: str
    services: dict[str, int]


class Page:
    """Serves one HTML file for all paths of the page, its static files, and the summaries."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store
        self._files = {path.name: path for path in (Path(__file__).parent / "static").iterdir()}

    def routes(self) -> list[Route]:
        """The page's routes."""
        pages = ("/", "/search", "/search/{rest:path}", "/trace/{rest:path}")
        return [
            *(Route(path, self.page) for path in pages),
            Route("/static/{name}", self.static),
            Route("/summaries", self.summaries),
        ]

    async def page(self, _request: Request) -> Response:
        """The page; its script chooses by the address what it shows."""
        return await self._file("index.html")

    async def static(self, request: Request) -> Response:
        """A file that the page loads."""
        return await self._file(request.path_params["name"])

    async def _file(self, name: str) -> Response:
        if name not in self._files:
            raise HTTPException(404)
        path = self._files[name]
        content = await asyncio.to_thread(path.read_bytes)
        return Response(content, media_type=_TYPES[path.suffix], headers=_HEADERS)

    async def summaries(self, request: Request) -> Response:
        """The traces found, the newest arrival first, and how full the store is.

        Unlike Jaeger's search this needs no service, covers all times by default, and does not return whole traces.
        """
        try:
            search, failed_only, limit = read_summaries(request.query_params)
        except InvalidQuery as error:
            return _problem(error)
        found = (t for t in find_traces(self._store, search) if not failed_only or any(map(_failed, t.spans)))
        return stream(self._list(islice(found, limit)), _HEADERS)

    def _list(self, traces: Iterable[Trace]) -> Iterator[str]:
        yield '{"traces":['
        yield from commas(dumps(summarise(trace)) for trace in traces)
        yield f'],"held":{dumps(self._held())}}}'

    def _held(self) -> dict[str, int]:
        store = self._store
        return {
            "traces": len(store),
            "spans": store.spans,
            "bytes": store.bytes,
            "maxSpans": store.max_spans,
            "maxBytes": store.max_bytes,
        }


def _problem(error: InvalidQuery) -> Response:
    """The response to invalid parameters (RFC 9457)."""
    problem = {"type": "about:blank", "title": error.status.phrase, "status": error.status, "detail": str(error)}
    return Response(dumps(problem), error.status, _HEADERS, "application/problem+json")


def summarise(trace: Trace) -> Summary:
    """The row of a trace, with the name of its root span; while the root is missing, of its first span."""
    root = min(trace.spans, key=lambda span: (bool(span.parent_id), span.start))
    start = min(span.start for span in trace.spans)
    end = max(span.end for span in trace.spans)
    kinds, root_outcome = Counter(outcome(span).kind for span in trace.spans), outcome(root)
    return {
        "traceID": format_trace_id(trace.trace_id),
        "service": root.origin.service,
        "operation": root.name,
        "start": start // 1000,
        "duration": (end - start) // 1000,
        "spans": len(trace.spans),
        "errors": kinds["error"],
        "clientErrors": kinds["client error"] + kinds["cancelled"],
        "outcome": root_outcome.kind,
        "status": root_outcome.status,
        "services": _services(trace.spans),
    }


def _failed(span: StoredSpan) -> bool:
    return span.status == Status.STATUS_CODE_ERROR and outcome(span).kind == "error"


def _services(spans: Sequence[StoredSpan]) -> dict[str, int]:
    """The number of spans of each service; the services are in the order of their first spans."""
    return Counter(span.origin.service for span in sorted(spans, key=lambda span: span.start))
