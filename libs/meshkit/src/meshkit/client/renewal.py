"""A channel that is renewed when it fails, because gRPC's own recovery may take minutes.

While a name has no address, gRPC asks DNS again after pauses that grow to two minutes, and no option shortens them
(src/core/resolver/dns/event_engine). So a failing channel is kept for the calls, which fail fast, and new ones are
tried beside it until one is ready, or it has recovered by itself.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from weakref import WeakSet

import grpc

from meshkit.client.calls import StreamStream, StreamUnary, UnaryStream, UnaryUnary

if TYPE_CHECKING:
    from collections.abc import Callable

Begin: TypeAlias = "Callable[..., Any]"
"""What begins the calls of a method: takes the request, or the iterator of requests, and gRPC's keywords."""

TRIAL_SECONDS = 4.0
"""How long a new channel has for becoming ready. gRPC asks DNS three times in it."""

FAILING = grpc.ChannelConnectivity.TRANSIENT_FAILURE


class RenewedChannel(grpc.aio.Channel):
    """Makes each call on the newest channel that was ready.

    Args:
        make: opens a channel; this object closes it.
        decorates: what is around each call, the outermost first. Each is called with the full name of a method (slash
            included) and what begins its calls.
        grace: seconds that the calls of a replaced channel have to end.
    """

    def __init__(
        self, make: Callable[[], grpc.aio.Channel], *decorates: Callable[[str, Begin], Begin], grace: float
    ) -> None:
        self._make = make
        self._decorates = decorates
        self._grace = grace
        self._current = make()
        self._renewal: asyncio.Task[None] | None = None
        self._calls: WeakSet[Any] = WeakSet()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; calls have `grace` seconds to end, and are cancelled then."""
        self._closed = True
        await asyncio.sleep(0)  # a call that was just made leaves its interceptors, which would fail
        if self._renewal:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        ends = asyncio.get_running_loop().time() + (grace or 0)
        for call in tuple(self._calls):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ends):
                    await call.code()
        await self._current.close()  # which overlooks some calls, and so would its own grace
        for call in tuple(self._calls):
            call.cancel()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - gRPC's
        """The state of the channel that calls are made on now."""
        return self._current.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the channel that calls are made on now leaves a state."""
        await self._current.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the channel that calls are made on now is ready."""
        await self._current.channel_ready()

    def unary_unary(self, method: str, *options: Any, **more: Any) -> Any:
        """The multi-callable of a method: see `grpc.aio.Channel`, as for the other three."""
        return self._method(method, UnaryUnary, lambda channel: channel.unary_unary(method, *options, **more))

    def unary_stream(self, method: str, *options: Any, **more: Any) -> Any:
        """The multi-callable of a method with a response stream."""
        return self._method(method, UnaryStream, lambda channel: channel.unary_stream(method, *options, **more))

    def stream_unary(self, method: str, *options: Any, **more: Any) -> Any:
        """The multi-callable of a method with a request stream."""
        return self._method(method, StreamUnary, lambda channel: channel.stream_unary(method, *options, **more))

    def stream_stream(self, method: str, *options: Any, **more: Any) -> Any:
        """The multi-callable of a method with both streams."""
        return self._method(method, StreamStream, lambda channel: channel.stream_stream(method, *options, **more))

    def _method(self, path: str, kind: Callable[[Any], Any], make: Callable[[grpc.aio.Channel], Begin]) -> Begin:
        def decorated(channel: grpc.aio.Channel) -> Begin:
            begin = make(channel)
            for decorate in reversed(self._decorates):
                begin = decorate(path, begin)
            return begin

        return _Method(self, kind, decorated)

    def for_call(self) -> grpc.aio.Channel:
        """The channel for a call made now. If it is failing, another one is looked for from now on.

        Raises:
            grpc.aio.UsageError: this object is closed.
        """
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")
        if self._renewal is None and self._current.get_state() is FAILING:
            self._renewal = asyncio.create_task(self._renew())
        return self._current

    def made(self, call: Any) -> Any:
        """Keeps a call in mind that `close` cancels, if somebody still holds it, and hands it back."""
        self._calls.add(call)
        return call

    async def _renew(self) -> None:
        try:
            while self._current.get_state() is FAILING:
                await self._try_another()
        finally:
            self._renewal = None

    async def _try_another(self) -> None:
        other = self._make()
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                await other.channel_ready()
            self._current, other = other, self._current
            await asyncio.sleep(0)  # a call that was just made leaves its interceptors, which would fail
        except TimeoutError:
            pass
        finally:
            await other.close(self._grace)


class _Method:
    """The multi-callable of one method on whatever channel is the newest."""

    def __init__(
        self, channel: RenewedChannel, kind: Callable[[Any], Any], make: Callable[[grpc.aio.Channel], Begin]
    ) -> None:
        self._channel = channel
        self._kind = kind
        self._make = make
        self._made_on: grpc.aio.Channel | None = None

    def __call__(self, *request: Any, **options: Any) -> Any:
        channel = self._channel.for_call()
        if channel is not self._made_on:
            self._made_on, self._method = channel, self._make(channel)
        return self._kind(self._channel.made(self._method(*request, **options)))
