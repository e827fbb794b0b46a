"""A channel that is renewed when it fails, because gRPC's own recovery may take minutes.

While a name has no address, gRPC asks DNS again after pauses that grow to two minutes, and no option shortens them
(src/core/resolver/dns/event_engine). So a failing channel is kept for the calls, which fail fast, and new ones are
tried beside it until one is ready, or it has recovered by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable

TRIAL_SECONDS = 4.0
"""How long a new channel has for becoming ready. gRPC asks DNS three times in it."""

FAILING = grpc.ChannelConnectivity.TRANSIENT_FAILURE


class RenewedChannel(grpc.aio.Channel):
    """Makes each call on the newest channel that was ready.

    Args:
        make: opens a channel; this object closes it.
        grace: seconds that the calls of a replaced channel have to end.
    """

    def __init__(self, make: Callable[[], grpc.aio.Channel], *, grace: float) -> None:
        self._make = make
        self._grace = grace
        self._current = make()
        self._renewal: asyncio.Task[None] | None = None
        self._calls: WeakSet[Any] = WeakSet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; calls have `grace` seconds to end, and are cancelled then."""
        if self._renewal:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._current.close(grace)
        for call in tuple(
            self._calls
        ):  # gRPC's own channel overlooks a call whose responses are read, and lets it go on
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

    def unary_unary(self, *method: Any, **options: Any) -> Any:
        """The multi-callable of a method: see `grpc.aio.Channel`, as for the other three."""
        return _Method(self, lambda channel: channel.unary_unary(*method, **options))

    def unary_stream(self, *method: Any, **options: Any) -> Any:
        """The multi-callable of a method with a response stream."""
        return _Method(self, lambda channel: channel.unary_stream(*method, **options))

    def stream_unary(self, *method: Any, **options: Any) -> Any:
        """The multi-callable of a method with a request stream."""
        return _Method(self, lambda channel: channel.stream_unary(*method, **options))

    def stream_stream(self, *method: Any, **options: Any) -> Any:
        """The multi-callable of a method with both streams."""
        return _Method(self, lambda channel: channel.stream_stream(*method, **options))

    def for_call(self) -> grpc.aio.Channel:
        """The channel for a call made now. If it is failing, another one is looked for from now on."""
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
            await asyncio.sleep(0)  # a call that was just made leaves its interceptors; a closed channel would raise
        except TimeoutError:
            pass
        finally:
            await other.close(self._grace)


class _Method:
    """The multi-callable of one method on whatever channel is the newest."""

    def __init__(self, channel: RenewedChannel, make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._channel = channel
        self._make = make
        self._made_on: grpc.aio.Channel | None = None

    def __call__(self, *request: Any, **options: Any) -> Any:
        channel = self._channel.for_call()
        if channel is not self._made_on:
            self._made_on, self._method = channel, self._make(channel)
        return self._channel.made(self._method(*request, **options))
