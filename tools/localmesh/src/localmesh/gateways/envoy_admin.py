"""The administration interface of Envoy, by which it drains: SIGTERM ends it at once, with its calls."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SOCKET = "admin"
"""The socket in the folder of the configuration."""

MAX_PATH = 107
"""The bytes of a socket's path on Linux: without an interface, Envoy ends its calls."""

GRACE = 20.0
"""Seconds for the calls in flight, as with the other gateways."""

INTERVAL = 0.05
ACTIVE = "http.gateway.downstream_rq_active"


async def drain(folder: Path) -> None:
    """Waits until the calls in flight are complete, while Envoy takes no new connections.

    `graceful` ends each connection with its next response; the second request closes the port now, not after it.
    """
    with suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(GRACE):
            await _request(folder / SOCKET, "POST", "/drain_listeners?graceful")
            await _request(folder / SOCKET, "POST", "/drain_listeners")
            while await statistic(folder / SOCKET, ACTIVE):  # noqa: ASYNC110 - another process sets no event of ours
                await asyncio.sleep(INTERVAL)


async def statistic(socket: Path, name: str) -> int:
    """One of its statistics; 0 before it is counted. Raises OSError when there is no interface."""
    found = re.search(r": (\d+)$", await _request(socket, "GET", f"/stats?filter=^{re.escape(name)}$"), re.MULTILINE)
    return int(found[1]) if found else 0


async def _request(socket: Path, method: str, path: str) -> str:
    """The body of a response, as it is transferred."""
    reader, writer = await asyncio.open_unix_connection(socket)
    with closing(writer):
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
        )
        return (await reader.read()).decode().partition("\r\n\r\n")[2]
