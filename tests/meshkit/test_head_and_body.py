"""The head of a response travels with the first part of its body, and never waits for it longer than a turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshkit.fastapi.server import ProblemRenderer, listen_socket
from meshkit.http.flow import HeadAndBody
from meshkit.http.server import serving
from meshkit.lifecycle import Stop
from tests.meshkit.http_server import PROBLEMS

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class Recorder(asyncio.Transport):
    """Records what is written, one item for each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.written.append(b"closed")


async def test_the_head_is_written_with_the_first_part_of_the_body() -> None:
    recorder = Recorder()
    response = HeadAndBody(recorder)
    for part in (b"head", b"first", b"second"):
        response.write(part)
    await asyncio.sleep(0)
    assert recorder.written == [b"headfirst", b"second"]


async def test_a_head_without_a_body_is_written_at_the_end_of_the_turn() -> None:
    recorder = Recorder()
    response = HeadAndBody(recorder)
    response.write(b"head")
    assert recorder.written == []
    await asyncio.sleep(0)
    response.write(b"body")
    assert recorder.written == [b"head", b"body"]


async def test_a_head_is_written_before_the_connection_is_closed() -> None:
    recorder = Recorder()
    response = HeadAndBody(recorder)
    response.write(b"head")
    response.close()
    await asyncio.sleep(0)
    assert recorder.written == [b"head", b"closed"]


async def test_a_client_gets_the_head_while_the_app_still_makes_the_body() -> None:
    has_head, listener, stop = asyncio.Event(), listen_socket("127.0.0.1:0"), Stop()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await has_head.wait()
        await send({"type": "http.response.body", "body": b"body"})

    renderer = ProblemRenderer(PROBLEMS)
    async with serving(app, renderer=renderer, listener=listener, stop=stop, grace_seconds=1):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        has_head.set()
        assert await reader.readexactly(4) == b"body"
        writer.close()
