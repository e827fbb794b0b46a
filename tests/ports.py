"""Loopback ports for servers that are told where to listen, and that are ended and started again."""

from __future__ import annotations

import socket


def held_port() -> int:
    """A free port that nobody else is given until this process ends.

    A socket stays bound to it that does not listen, so that connections are refused, and that lets a server that asks
    for this very port have it (SO_REUSEADDR); the kernel gives it to no one who asks for any port, nor to a client.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    holder.detach()
    return port
