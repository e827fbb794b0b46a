"""Handlers of every form that grpc.aio accepts. All follow the script between two messages."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from meshkit.errors import AlreadyExists

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from tests.conformance.table import Row

Context = grpc.aio.ServicerContext[Any, Any]


class Script:
    """What a handler does once it has started, and how it ended."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.started = asyncio.Event()
        self.over = asyncio.Event()
        self.cancelled = False
        self.budget = self.remaining = 0.0

    @contextmanager
    def watch(self, context: Context) -> Iterator[None]:
        """Records how the handler in the block ends."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled, self.remaining = True, context.time_remaining() or 0
            raise
        finally:
            self.over.set()

    async def act(self, context: Context) -> None:
        """The action between the first request and the rest of the work."""
        self.budget = context.time_remaining() or 0
        self.started.set()
        match self.action:
            case "waits":
                await asyncio.Event().wait()
            case "aborts":
                await context.abort(grpc.StatusCode.NOT_FOUND, "no")
            case "aborts richly":
                await context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=14, message="away")))
            case "refuses":
                raise AlreadyExists("again")
            case "crashes":
                raise ZeroDivisionError

    def more(self) -> Iterable[bytes]:
        """The responses of a stream after the first: some, or more than any flow-control window allows."""
        return itertools.repeat(bytes(100_000)) if self.action == "writes" else (b"2", b"3")


def handler(row: Row, script: Script) -> Callable[..., Any]:
    """The handler of a row."""
    return partial(FORMS[row.arity, row.handler], script)


async def returns(script: Script, request: bytes, context: Context) -> bytes:
    with script.watch(context):
        await script.act(context)
        return request


async def yields(script: Script, request: bytes, context: Context) -> AsyncIterator[bytes]:
    with script.watch(context):
        yield request
        await script.act(context)
        for response in script.more():
            yield response


async def writes(script: Script, request: bytes, context: Context) -> None:
    with script.watch(context):
        await context.write(request)
        await script.act(context)
        for response in script.more():
            await context.write(response)


async def iterates_returns(script: Script, requests: AsyncIterator[bytes], context: Context) -> bytes:
    with script.watch(context):
        first = await anext(aiter(requests))
        await script.act(context)
        return first + b"".join([request async for request in requests])


async def reads_returns(script: Script, requests: AsyncIterator[bytes], context: Context) -> bytes:
    with script.watch(context):
        first: bytes = await context.read()
        await script.act(context)
        return first + b"".join([request async for request in reads(context)])


async def iterates_yields(script: Script, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    with script.watch(context):
        yield await anext(aiter(requests))
        await script.act(context)
        for response in script.more():
            yield response
        async for request in requests:
            yield request


async def iterates_writes(script: Script, requests: AsyncIterator[bytes], context: Context) -> None:
    with script.watch(context):
        await context.write(await anext(aiter(requests)))
        await script.act(context)
        for response in script.more():
            await context.write(response)
        async for request in requests:
            await context.write(request)


async def reads_yields(script: Script, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    with script.watch(context):
        yield await context.read()
        await script.act(context)
        for response in script.more():
            yield response
        while (request := await context.read()) is not grpc.aio.EOF:
            yield request


async def reads_writes(script: Script, requests: AsyncIterator[bytes], context: Context) -> None:
    with script.watch(context):
        await context.write(await context.read())
        await script.act(context)
        for response in script.more():
            await context.write(response)
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request)


async def reads(context: Context) -> AsyncIterator[bytes]:
    while (request := await context.read()) is not grpc.aio.EOF:
        yield request


FORMS: dict[tuple[str, str], Callable[..., Any]] = {
    ("unary-unary", "returns"): returns,
    ("unary-stream", "yields"): yields,
    ("unary-stream", "context.write"): writes,
    ("stream-unary", "async for, returns"): iterates_returns,
    ("stream-unary", "context.read, returns"): reads_returns,
    ("stream-stream", "async for, yields"): iterates_yields,
    ("stream-stream", "async for, context.write"): iterates_writes,
    ("stream-stream", "context.read, yields"): reads_yields,
    ("stream-stream", "context.read, context.write"): reads_writes,
}
