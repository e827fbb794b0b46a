"""Refuses the calls that come just before a server stops: UNAVAILABLE, so that clients try another one.

When its server stops, gRPC cancels the calls that it has received and not begun, and no client retries CANCELLED. So
the server first refuses every further call until its clients have noticed. The calls that it has begun go on.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from meshkit.errors import RETRY_AFTER, Unavailable

if TYPE_CHECKING:
    from meshkit.server.context import CallContext, Request, Response
    from meshkit.server.types import Behavior

QUIET_SECONDS, TIMES = 0.05, 2
"""Clients have noticed when no call has come for so long, twice in turn: once, it may be the loop that was busy."""

MAX_SECONDS = 1.0
"""How long to wait for that at most: some clients call on as fast as they can."""


class Closing:
    """Whether a server refuses calls."""

    def __init__(self) -> None:
        self._is_closing = False
        self._refused = 0

    async def refuse(self, hurried: asyncio.Event) -> None:
        """Refuses all further calls. Returns when clients have noticed, after MAX_SECONDS, or when `hurried` is set."""
        self._is_closing = True
        end = time.monotonic() + MAX_SECONDS
        # Not asyncio.timeout: in a cancelled task it raises CancelledError before Python 3.11.3 (cpython gh-102780).
        quiet, hurry = 0, asyncio.create_task(hurried.wait())
        try:
            while quiet < TIMES and not hurry.done() and time.monotonic() < end:
                refused = self._refused
                await asyncio.wait({hurry}, timeout=QUIET_SECONDS)
                quiet = quiet + 1 if self._refused == refused else 0
        finally:
            hurry.cancel()

    def concern(self, _method: str, behavior: Behavior[Request, Response]) -> Behavior[Request, Response]:
        """Surrounds the behavior of each method."""

        async def respond(context: CallContext[Request, Response]) -> Response | None:
            if self._is_closing:
                self._refused += 1
                raise Unavailable("the server is stopping; another one may serve the call", retry_after=RETRY_AFTER)
            return await behavior(context)

        return respond
