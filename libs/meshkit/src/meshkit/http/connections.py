"""The open connections of a server: how many there may be, and how long each may take."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from meshkit.http.limits import Limits

log = logging.getLogger("meshkit.http")

SPARE = 16
"""How many connections there may be above the cap while all have a request, so that each may send one."""

LEFT = 0.9
"""The part of the cap below which it counts as left, and is logged again when it is reached again."""


class Connection(Protocol):
    """One connection of a client."""

    def check_time(self, now: float) -> None:
        """Closes the connection if a time limit has passed. `now` is the time of the event loop."""

    def has_backlog(self) -> bool:
        """Whether a response waits for the client to read, or requests wait behind the one that runs."""
        ...

    def abort(self) -> None:
        """Closes the connection at once, which cancels its request."""


class Connections:
    """The open connections of one server. Each request costs two operations of a dictionary, and no timer.

    Above the cap, a new connection closes the one that is without a request for the longest time. If all have one, it
    closes the oldest with a backlog. If none has, it is itself closed when too many are above the cap.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: OrderedDict[Connection, None] = OrderedDict()
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self._is_full = False

    def add(self, connection: Connection) -> None:
        """A new connection, without a request."""
        self._open[connection] = self._idle[connection] = None
        if len(self._open) > self._limits.connections:
            self._make_room(connection)

    def remove(self, connection: Connection) -> None:
        """The connection is closed."""
        self._open.pop(connection, None)
        self._idle.pop(connection, None)

    def set_busy(self, connection: Connection) -> None:
        """The connection has a complete request."""
        self._idle.pop(connection, None)

    def set_idle(self, connection: Connection) -> None:
        """All complete requests of the connection have their responses."""
        if connection in self._open:
            self._idle[connection] = None
            self._idle.move_to_end(connection)

    async def watch(self) -> None:
        """Checks the time limits of all connections, forever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limits.sweep_seconds)
            self._check(loop.time())  # in a frame that ends, because it refers to a connection

    def _check(self, now: float) -> None:
        for connection in list(self._open):
            connection.check_time(now)
        self._is_full = self._is_full and len(self._open) > LEFT * self._limits.connections

    def _make_room(self, newest: Connection) -> None:
        if not self._is_full:
            self._is_full = True
            text = "%d connections are open, as many as there may be: each new one closes another one"
            log.warning(text, self._limits.connections, extra={"connections": self._limits.connections})
        victim = next(iter(self._idle))
        if victim is newest:
            victim = next((other for other in self._open if other.has_backlog()), newest)
        if victim is newest and len(self._open) <= self._limits.connections + SPARE:
            return
        self.remove(victim)
        victim.abort()
