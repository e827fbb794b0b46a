"""Loopback ports for servers that are restarted on the same port."""

from __future__ import annotations

import socket


def held_port() -> int:
    """A free port that is reserved until this process exits.

    A bound socket that does not listen reserves it: the kernel gives this port to no server that asks for any free
    port and to no client, and it refuses connections. A server that asks for this port gets it, by SO_REUSEADDR.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    holder.detach()
    return port
