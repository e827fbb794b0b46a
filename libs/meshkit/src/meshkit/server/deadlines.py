"""The deadline of each RPC: what comes too late is refused at once, and the rest is the budget of outgoing calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshkit.deadline import FLOOR, budget
from meshkit.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from meshkit.server.context import CallContext, Request, Response
    from meshkit.server.types import Behavior

MAX_SECONDS = 30.0
"""The budget of a call whose client set no deadline."""


def deadlines(method: str, behavior: Behavior[Request, Response]) -> Behavior[Request, Response]:
    """Refuses at once what cannot be answered in time, and opens the budget that outgoing calls share."""

    async def respond(context: CallContext[Request, Response]) -> Response | None:
        left = context.time_remaining()
        if left is not None and left < FLOOR:
            raise DeadlineExceeded(f"{method.lstrip('/')} came with {max(left, 0) * 1000:.0f} ms left")
        with budget(left or MAX_SECONDS):
            if left is not None:  # the deadline cancels the handler by itself
                return await behavior(context)
            return await _at_most(MAX_SECONDS, behavior(context))

    return respond


async def _at_most(seconds: float, response: Awaitable[Response]) -> Response:
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            return await response
    except TimeoutError:
        if not timeout.expired():
            raise
        raise DeadlineExceeded(f"the server allows {seconds:.0f} s to a call without a deadline") from None
