"""Replaces a failing channel, because gRPC's own recovery may take minutes.

While a name has no address, gRPC retries DNS after pauses that grow to two minutes, and no option shortens them
(src/core/resolver/dns/event_engine). So calls keep the failing channel and fail fast, while this module opens new
channels until one is ready or the old one has recovered.
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
"""Seconds that a new channel has to become ready. gRPC queries DNS three times in this time."""

FAILING = grpc.ChannelConnectivity.TRANSIENT_FAILURE


class Renewal:
    """Holds the newest channel that became ready.

    Args:
        connect: opens a channel. This object closes the channels that it replaces; the caller closes `current`.
        grace: seconds that the calls on a replaced channel have to finish.

    Attributes:
        current: the newest channel, even if it fails now.
    """

    def __init__(self, connect: Connect, grace: float) -> None:
        self._connect = connect
        self._grace = grace
        self._task: asyncio.Task[None] | None = None
        self.current = connect()

    def multicallable(
        self, make: Callable[[grpc.aio.Channel], Multicallable[Request, Call]]
    ) -> Multicallable[Request, Call]:
        """A multicallable on the newest channel; `make` is called once for each channel."""
        on_channel = lru_cache(maxsize=1)(make)

        def start(request: Request, /, **options: Unpack[CallOptions]) -> Call:
            return on_channel(self._for_call())(request, **options)

        return start

    async def stop(self) -> None:
        """Stops opening channels."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _for_call(self) -> grpc.aio.Channel:
        """The channel for a new call. If it is failing, starts to replace it."""
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
            await asyncio.sleep(0)  # a call just started must first leave its interceptors, or they would fail
        except TimeoutError:
            pass
        finally:
            await other.close(self._grace)
