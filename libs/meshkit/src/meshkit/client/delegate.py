"""A call that passes everything on to another call, for the classes that change one thing about it."""

# ruff: noqa: D102 - grpc.aio.Call documents its methods
from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from meshkit.client.types import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Delegate(Generic[Call], grpc.aio.Call):  # noqa: PYI059 - the order of gRPC's subclasses
    """What calls of all arities share. Its coroutines refer to it, so a stream in use is not garbage-collected."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def cancelled(self) -> bool:
        return self._call.cancelled()

    def done(self) -> bool:
        return self._call.done()

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def cancel(self) -> bool:
        return self._call.cancel()

    def add_done_callback(self, callback: Callable[[grpc.aio.Call], None]) -> None:
        self._call.add_done_callback(callback)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return await self._call.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        return await self._call.code()

    async def details(self) -> str:
        return await self._call.details()

    async def debug_error_string(self) -> str | None:
        return await self._call.debug_error_string()  # type: ignore[attr-defined, no-any-return] # every call has it

    async def wait_for_connection(self) -> None:
        await self._call.wait_for_connection()


def result_of(coroutine: Coroutine[None, None, T]) -> T:
    """The result of a coroutine of a finished call, which does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the call is not done")
