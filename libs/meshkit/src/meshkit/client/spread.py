"""Spreads the calls of a channel over gRPC channels, so that a server never refuses one for its connection's limit.

A server takes 100 calls at a time on a connection. gRPC's client starts the next call when a response has arrived, but
a server with gRPC's core counts a call until its process has freed it, a little later, and refuses what is above the
limit: for the client UNAVAILABLE (parsing.cc, `max_concurrent_streams_overload_protection`, a defence against
CVE-2023-44487). With at most half of the limit in flight, the other half may still be waiting to be freed.

gRPC itself may open further connections one day, see gRFC A105 (MAX_CONCURRENT_STREAMS connection scaling).
"""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from meshkit.client.renewal import Renewal

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    import grpc

    from meshkit.client.types import Call, CallOptions, Connect, Multicallable, Request

CALLS = 50
"""The calls that a gRPC channel carries at a time: half of what a server takes on a connection."""
CHANNELS = 20
"""The most gRPC channels; above, calls exceed CALLS. A server refuses them then anyway (`max_pending`)."""


class Spread:
    """The gRPC channels of one target, the first of which carries all calls while they are few.

    Args:
        connect: opens a gRPC channel; this object closes it.
        grace: seconds that the calls of a channel have to end when it is renewed.
    """

    def __init__(self, connect: Connect, grace: float) -> None:
        self._renewal = partial(Renewal, connect, grace)
        self._lanes = [_Lane(self._renewal())]

    @property
    def first(self) -> grpc.aio.Channel:
        """The gRPC channel that a call uses when no other is in flight."""
        return self._lanes[0].renewal.current

    def multicallable(
        self, make: Callable[[grpc.aio.Channel], Multicallable[Request, Call]]
    ) -> Multicallable[Request, Call]:
        """A multicallable over all channels; `make` is called once for each channel."""

        @lru_cache(maxsize=CHANNELS)
        def on_lane(lane: _Lane) -> Multicallable[Request, Call]:
            return lane.renewal.multicallable(make)

        def start(request: Request, /, **options: Unpack[CallOptions]) -> Call:
            lane = self._for_call()
            call = on_lane(lane)(request, **options)
            lane.calls.add(call)
            call.add_done_callback(lane.calls.discard)  # grpc.aio 1.82 may run it twice
            return call

        return start

    async def stop(self) -> None:
        """Stops renewing channels."""
        await asyncio.gather(*(lane.renewal.stop() for lane in self._lanes))

    async def close(self) -> None:
        """Closes all channels, after `stop`."""
        await asyncio.gather(*(lane.renewal.current.close() for lane in self._lanes))

    def _for_call(self) -> _Lane:
        for lane in self._lanes:
            if len(lane.calls) < CALLS:
                return lane
        if len(self._lanes) == CHANNELS:
            return min(self._lanes, key=lambda lane: len(lane.calls))
        self._lanes.append(_Lane(self._renewal()))
        return self._lanes[-1]


class _Lane:
    """One gRPC channel, which is renewed when it fails, and its calls in flight."""

    __slots__ = ("calls", "renewal")

    def __init__(self, renewal: Renewal) -> None:
        self.renewal = renewal
        self.calls: set[grpc.aio.Call] = set()
