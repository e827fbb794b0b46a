"""Responds with a problem instead of running the app."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from meshkit.addresses import HostPort

if TYPE_CHECKING:
    import logging

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

DISCARD_BYTES, DISCARD_SECONDS = 64 * 1024 * 1024, 5.0
"""How much of a refused body is read and dropped, and for how long, so that its sender can read the response."""


async def refuse(problem: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a problem so that a client which sends its body first can read it."""
    if not expects_continue(scope):
        await discard(receive)
    await problem(scope, receive, send)


def log_refusal(log: logging.Logger, scope: Scope, status: int) -> None:
    """Logs a request that is refused before it has a span."""
    peer = str(HostPort._make(scope["client"] or ("", 0)))
    fields = {"method": scope["method"], "path": scope["path"], "status": status}
    log.info("%s %s %s", *fields.values(), extra=fields | {"peer": peer})


async def discard(receive: Receive) -> None:
    """Reads the rest of a body, within limits, because closing a connection with unread data loses its response."""
    remaining_bytes, more = DISCARD_BYTES, True
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while more and remaining_bytes > 0:
                message = await receive()
                remaining_bytes -= len(message.get("body", b""))
                more = message.get("more_body", False)


def expects_continue(scope: Scope) -> bool:
    """Whether the client waits for `100 Continue` before it sends the body."""
    return any(name == b"expect" for name, _ in scope["headers"])
