"""HEAD of a stream ends after its head, and ends the stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from meshkit.fastapi.head import HeadAsGet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import Message, Scope

pytestmark = pytest.mark.unit


class Exchange:
    """One request for `/`, as an ASGI server runs it."""

    def __init__(self, spec_version: str) -> None:
        self.sent: list[Message] = []
        self._scope: dict[str, Any] = {
            "type": "http",
            "method": "HEAD",
            "path": "/",
            "headers": [],
            "query_string": b"",
        }
        self._scope["asgi"] = {"version": "3.0", "spec_version": spec_version}
        self._silence = asyncio.Event()

    @property
    def scope(self) -> Scope:
        return self._scope

    async def receive(self) -> Message:
        await self._silence.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


@pytest.mark.parametrize("spec_version", ["2.0", "2.4"])
@pytest.mark.parametrize("has_events", [True, False])
async def test_head_of_a_stream_is_complete_at_once_and_cancels_the_stream(
    spec_version: str, *, has_events: bool
) -> None:
    state = []

    async def events() -> AsyncIterator[str]:
        state.append("begun")
        try:
            while has_events:
                yield "data: 1\n\n"
            await asyncio.Event().wait()
        finally:
            state.append("ended")

    async def stream(_request: Request) -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    exchange = Exchange(spec_version)
    app = HeadAsGet(Starlette(routes=[Route("/", stream)]))
    task = asyncio.create_task(app(exchange.scope, exchange.receive, exchange.send))
    await task
    start, *bodies = exchange.sent
    assert (start["status"], dict(start["headers"])[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
    assert [(body["body"], body["more_body"]) for body in bodies] == [(b"", False)]
    assert state in ([], ["begun", "ended"])
    assert task.cancelling() == 0


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_head_of_a_response_without_a_body_cancels_nothing(status: int) -> None:
    done = asyncio.Event()

    async def empty(_request: Request) -> Response:
        async def finish() -> None:
            await asyncio.sleep(0)
            done.set()

        return Response(status_code=status, background=BackgroundTask(finish))

    exchange = Exchange("2.4")
    await HeadAsGet(Starlette(routes=[Route("/", empty)]))(exchange.scope, exchange.receive, exchange.send)
    start, body = exchange.sent
    assert (start["status"], body["body"], body["more_body"]) == (status, b"", False)
    assert done.is_set()


async def test_a_request_that_is_cancelled_from_outside_stays_cancelled() -> None:
    begun = asyncio.Event()

    async def wait(_request: Request) -> StreamingResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    exchange = Exchange("2.4")
    app = HeadAsGet(Starlette(routes=[Route("/", wait)]))
    task = asyncio.create_task(app(exchange.scope, exchange.receive, exchange.send))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert exchange.sent == []
