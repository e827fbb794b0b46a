"""Connections that take time or number: each ends in bounded time, makes room for others, and leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from meshkit.http.exchange import Exchange
from tests.meshkit.http_server import App, chunked, get, http_server, post

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from tests.meshkit.http_server import Client, Running

LONG = 60.0
"""Seconds of a limit that no test reaches."""

SHORT = {"head_seconds": LONG, "keep_alive_seconds": LONG, "write_seconds": LONG, "sweep_seconds": 0.01}
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX: "


@pytest.fixture(autouse=True, scope="module")
def _only_new_objects() -> None:
    """Hides the objects of other tests and of imports from `objects`, which are hundreds of thousands.

    They stay hidden, so the collections of later tests are fast.
    """
    gc.collect()
    gc.freeze()


async def trickle(client: Client) -> None:
    """Sends a head that never ends, in bytes."""
    await client.send(HALF)
    while True:
        await client.send(b"a")
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n"], ids=["silent", "empty lines"])
async def test_a_connection_without_a_request_is_closed(data: bytes) -> None:
    async with http_server(App(), **SHORT | {"head_seconds": 0.05}) as server, server.connect() as client:
        await client.send(data)
        assert await client.rest() == b""


@pytest.mark.parametrize("before", [b"", get()], ids=["first", "second"])
async def test_a_half_head_is_408(before: bytes) -> None:
    async with http_server(App(), **SHORT | {"head_seconds": 0.05}) as server, server.connect() as client:
        await client.send(before + HALF)
        if before:
            assert (await client.answer()).status == 200
        answer = await client.answer()
        assert (answer.status, answer.reason) == (408, "REQUEST_TIMEOUT")
        assert await client.rest() == b""


async def test_a_trickled_head_is_408() -> None:
    async with http_server(App(), **SHORT | {"head_seconds": 0.05}) as server, server.connect() as client:
        sending = asyncio.create_task(trickle(client))
        assert (await client.answer()).reason == "REQUEST_TIMEOUT"
        sending.cancel()


@pytest.mark.parametrize("request_", [get(), post("/", b"abc")[:-1], get() + b"\r\n"], ids=["whole", "half", "CRLF"])
async def test_a_connection_that_is_kept_alive_is_closed_later(request_: bytes) -> None:
    async with http_server(App(), **SHORT | {"keep_alive_seconds": 0.05}) as server, server.connect() as client:
        await client.send(request_)
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_a_request_that_runs_has_no_limit_of_the_connection() -> None:
    app = App()
    limits = {"head_seconds": 0.05, "keep_alive_seconds": 0.05, "write_seconds": 0.05}
    async with http_server(app, **SHORT | limits) as server, server.connect() as client, server.connect() as other:
        await client.send(get("/wait?1"))
        assert await other.rest() == b""  # it was closed, so the time has passed
        app.free.set()
        assert (await client.answer()).body == b"1"


@pytest.mark.parametrize("fields", [[], ["Connection: close"]], ids=["kept alive", "close"])
async def test_a_response_that_is_never_read_ends_its_connection_and_request(fields: list[str]) -> None:
    app = App()
    async with http_server(app, **SHORT | {"write_seconds": 0.05}) as server:
        with socket.create_connection(server.address) as silent:
            silent.sendall(get("/large", *fields) + get("/large") * 20)
            await app.ended.wait()
            await until(lambda: not objects(HttpToolsProtocol))


async def test_a_slow_reader_gets_its_response() -> None:
    async with http_server(App(), **SHORT | {"write_seconds": 0.5}) as server, server.connect() as client:
        await client.send(get("/large"))
        assert len((await client.answer()).body) == 16_000_000


ADVERSE = {
    "silent": b"",
    "half a head": HALF,
    "half a body": post("/body", b"abc")[:-1],
    "kept alive": get(),
    "never read": get("/large"),
    "refused": b"\0",
}


@pytest.mark.parametrize("data", ADVERSE.values(), ids=ADVERSE)
async def test_at_the_cap_a_new_connection_is_served(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with http_server(App(), **SHORT | {"connections": 4}) as server, AsyncExitStack() as stack:
        for _ in range(20):
            client = await stack.enter_async_context(server.connect())
            await client.send(data)
        for _ in range(2):
            client = await stack.enter_async_context(server.connect())
            await client.send(get("/?new"))
            assert (await client.answer()).body == b"new"
    lines = [record.getMessage() for record in caplog.records if record.name == "meshkit.http"]
    assert sum(line.startswith("4 connections are open") for line in lines) == 1


async def test_the_connection_longest_without_a_request_makes_room() -> None:
    app = App()
    async with (
        http_server(app, **SHORT | {"connections": 3}) as server,
        server.connect() as busy,
        server.connect() as used,
        server.connect() as unused,
    ):
        await busy.send(get("/wait?busy"))
        await app.reached.wait()
        await unused.send(get("/?0"))
        await unused.answer()
        await used.send(get("/?1"))
        await used.answer()
        async with server.connect() as newest:
            assert await unused.rest() == b""
            for client in (used, newest):
                await client.send(get("/?2"))
                assert (await client.answer()).body == b"2"
        app.free.set()
        assert (await busy.answer()).body == b"busy"


async def test_the_cap_is_logged_again_after_it_was_left(caplog: pytest.LogCaptureFixture) -> None:
    def warnings() -> int:
        return sum("connections are open" in record.getMessage() for record in caplog.records)

    async with http_server(App(), **SHORT | {"connections": 4}) as server:
        while warnings() < 2:  # in between, a sweep has to notice that the cap was left
            async with AsyncExitStack() as stack:
                for _ in range(8):
                    await stack.enter_async_context(server.connect())
                await until(lambda: len(objects(HttpToolsProtocol)) >= 4)
            await until(lambda: not objects(HttpToolsProtocol))


@pytest.mark.timeout(60)
async def test_reading_pauses_while_many_requests_wait() -> None:
    app = App()
    async with http_server(app, pipelined=8) as server, server.connect() as client:
        await client.send(get("/wait?0"))
        await app.reached.wait()
        sending = asyncio.create_task(
            client.send(b"".join(get(f"/?{number}", "X: " + 500 * "x") for number in range(1, 1000)))
        )
        await until(paused)
        assert len(objects(RequestResponseCycle)) <= 10
        app.free.set()
        assert [int((await client.answer()).body) for _ in range(1000)] == list(range(1000))
        await sending


def paused() -> bool:
    return any(protocol.flow.is_held for protocol in objects(HttpToolsProtocol))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def objects(kind: type) -> list[Any]:
    """The objects of a kind that tests of this file have made."""
    return [each for each in gc.get_objects() if isinstance(each, kind)]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def leave(client: Client, data: bytes, responses: int) -> None:
    await client.send(data)
    for _ in range(responses):
        await client.answer()


async def wait_for_the_end(client: Client, data: bytes, responses: int) -> None:
    await leave(client, data, responses)
    await client.rest()


ENDS: dict[str, tuple[Callable[..., Coroutine[Any, Any, None]], bytes, int]] = {
    "silent": (leave, b"", 0),
    "kept alive": (leave, get(), 1),
    "closed": (wait_for_the_end, get("/", "Connection: close"), 1),
    "pipelined": (leave, get() * 5, 5),
    "pipelined and left": (leave, get("/wait") * 5, 0),
    "half a head": (leave, HALF, 0),
    "half a body": (leave, post("/body", b"abc")[:-1], 0),
    "cancelled": (leave, get("/wait"), 0),
    "begun": (leave, get("/begun"), 0),
    "refused": (wait_for_the_end, b"\0", 1),
    "refused in its body": (wait_for_the_end, chunked("/body") + b"ZZ", 1),
    "refused behind others": (leave, get("/wait") + get(version="HTTP/2.0"), 0),
    "upgrade": (leave, get("/", "Connection: Upgrade", "Upgrade: h2c"), 1),
    "expecting": (wait_for_the_end, get("/", "Content-Length: 5", "Expect: 100-continue", method="POST"), 1),
}


@pytest.mark.parametrize(("end", "data", "responses"), ENDS.values(), ids=ENDS)
@pytest.mark.usefixtures("no_collector")
async def test_a_closed_connection_leaves_nothing_to_the_collector(
    end: Callable[..., Coroutine[Any, Any, None]], data: bytes, responses: int
) -> None:
    kinds = (HttpToolsProtocol, RequestResponseCycle, Exchange)
    earlier = {id(each) for kind in kinds for each in objects(kind)}  # of tests that failed

    async def one(server: Running) -> None:
        async with server.connect() as client:
            await end(client, data, responses)

    async with http_server(App()) as server:
        for _ in range(3):
            await asyncio.gather(*(one(server) for _ in range(5)))
        async with asyncio.timeout(5):
            await until(lambda: {id(each) for kind in kinds for each in objects(kind)} <= earlier)
