"""The HTTP routes for programs: the part of Jaeger's query API that scripts use."""

from __future__ import annotations

from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tracebox.compact_json import dumps
from tracebox.jaeger import format_trace_id, trace_json
from tracebox.parameters import InvalidQuery, Parameters, check_limit, parse_trace_id
from tracebox.search import find_traces
from tracebox.streaming import commas, stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from starlette.requests import Request

    from tracebox.store import Trace, TraceStore

_NOT_FOUND = "trace not found"


class QueryApi:
    """Responds with data from the store; raises InvalidQuery for an invalid request."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """The routes below `/api`."""
        return [
            Route("/api/services", self.services),
            Route("/api/services/{service:path}/operations", self.operations),
            Route("/api/traces", self.traces),
            Route("/api/traces/{trace_id}", self.trace),
        ]

    async def services(self, _request: Request) -> Response:
        """The names of the services that have spans."""
        return _names_response(self._store.services())

    async def operations(self, request: Request) -> Response:
        """The operations of a service; null if the service is unknown."""
        names = self._store.operations(request.path_params["service"])
        return _names_response(names) if names else Response(dumps(_envelope(None)), media_type="application/json")

    async def traces(self, request: Request) -> Response:
        """The traces that a search finds, or those with the given ids."""
        parameters = Parameters(request.query_params)
        search, limit, trace_ids = parameters.search(), parameters.limit(), parameters.trace_ids()
        parameters.flag("raw")
        if trace_ids:
            found = {trace_id: self._store.trace(trace_id) for trace_id in trace_ids}
            missing = [trace_id for trace_id, trace in found.items() if trace is None]
            return _traces_response(filter(None, found.values()), missing)
        parameters.require_service()
        check_limit(limit, HTTPStatus.INTERNAL_SERVER_ERROR)  # as Jaeger
        return _traces_response(islice(find_traces(self._store, search), limit))

    async def trace(self, request: Request) -> Response:
        """One trace. `start`, `end` and `raw` change nothing, but must be valid."""
        trace_id = parse_trace_id(request.path_params["trace_id"])
        parameters = Parameters(request.query_params)
        parameters.window()
        parameters.flag("raw")
        trace = self._store.trace(trace_id)
        if trace is None:
            raise InvalidQuery(_NOT_FOUND, HTTPStatus.NOT_FOUND)
        return _traces_response([trace])


def _traces_response(traces: Iterable[Trace], missing: Iterable[bytes] = ()) -> Response:
    errors = [{"msg": _NOT_FOUND, "traceID": format_trace_id(trace_id)} for trace_id in missing]
    return stream(_document(_trace_parts(traces), errors=errors or None))


def _trace_parts(traces: Iterable[Trace]) -> Iterator[str]:
    for index, trace in enumerate(traces):
        yield "," if index else ""
        yield from trace_json(trace)


def _names_response(names: Sequence[str]) -> Response:
    return stream(_document(commas(map(dumps, names)), total=len(names)))


def _document(data: Iterable[str], *, total: int = 0, errors: object = None) -> Iterator[str]:
    """The envelope around a list whose JSON comes in parts."""
    before, after = dumps(_envelope([], total=total, errors=errors)).split("[]", 1)
    yield f"{before}["
    yield from data
    yield f"]{after}"


def error_response(_request: Request, error: Any) -> Response:  # always an InvalidQuery; Starlette's type is wider
    """The response to an invalid request: Jaeger's envelope as plain text."""
    body = dumps(_envelope(None, errors=[{"code": error.status, "msg": str(error)}]))
    return plain_text(f"{body}\n", error.status)


def not_found(_request: Request, _error: Exception) -> Response:
    """The response to any path or method that is not supported."""
    return plain_text("404 page not found\n", HTTPStatus.NOT_FOUND)


def plain_text(body: str, status: HTTPStatus) -> Response:
    """The response of Go's `http.Error`."""
    return PlainTextResponse(body, status, {"X-Content-Type-Options": "nosniff"})


def _envelope(data: object, *, total: int = 0, errors: object = None) -> dict[str, object]:
    return {"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}
