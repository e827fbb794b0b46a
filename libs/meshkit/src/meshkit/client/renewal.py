"""A channel that is renewed when it fails, because gRPC's own recovery may take minutes.

While a name has no address, gRPC asks DNS again after pauses that grow to two minutes, and no option shortens them
(src/core/resolver/dns/event_engine). So a failing channel is kept for the calls, which fail fast, and new ones are
tried beside it until one is ready, or it has recovered by itself.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from meshkit.client.types import Call, CallOptions, Connect, Multicallable, Request

TRIAL_SECONDS = 4.0
"""How long a new channel has for becoming ready. gRPC asks DNS three times in it."""

FAILING = grpc.ChannelConnectivity.TRANSIENT_FAILURE


class Renewal:
    """Keeps the newest channel that was ready.

    Args:
        connect: opens a channel. This object closes those that it replaces, its user the `current` one.
        grace: seconds that the calls of a replaced channel have to end.

    Attributes:
        current: that channel, failing or not.
    """

    def __init__(self, connect: Connect, grace: float) -> None:
        self._connect = connect
        self._grace = grace
        self._task: asyncio.Task[None] | None = None
        self.current = connect()

    def multicallable(
        self, make: Callable[[grpc.aio.Channel], Multicallable[Request, Call]]
    ) -> Multicallable[Request, Call]:
        """The multicallable that `make` makes of whatever channel is the newest, once for each."""
        on_channel = lru_cache(maxsize=1)(make)

        def start(request: Request, /, **options: Unpack[CallOptions]) -> Call:
            return on_channel(self._for_call())(request, **options)

        return start

    async def stop(self) -> None:
        """Looks for no other channel any more."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _for_call(self) -> grpc.aio.Channel:
        """The channel for a call made now. If it is failing, another one is looked for from now on."""
        if self._task is None and self.current.get_state() is FAILING:
            self._task = asyncio.create_task(self._renew())
        return self.current

    async def _renew(self) -> None:
        try:
            while self.current.get_state() is FAILING:
                await self._try_another()
        finally:
            self._task = None

    async def _try_another(self) -> None:
        other = self._connect()
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                await other.channel_ready()
            self.current, other = other, self.current
            await asyncio.sleep(0)  # a call that was just made leaves its interceptors, which would fail
        except TimeoutError:
            pass
        finally:
            await other.close(self._grace)
