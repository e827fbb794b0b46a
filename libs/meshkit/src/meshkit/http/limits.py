"""The limits of an HTTP server, and the number of connections that the process can hold."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field

RESERVED_DESCRIPTORS = 64
"""File descriptors that are left for databases, gRPC and logs."""

DESCRIPTORS = 2
"""Of one connection: its socket, and a file that it is sent. The loop may also accept many before it counts them."""

MAX_CONNECTIONS = 65_536
"""The cap where the process may open more files than that."""


def connection_cap() -> int:
    """The number of connections that the descriptor limit allows: what is left of it, but at least a quarter."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max((soft - RESERVED_DESCRIPTORS) // DESCRIPTORS, soft // 4))


@dataclass(frozen=True)
class Limits:
    """What one client may take of an HTTP server.

    Attributes:
        head_bytes: of a request without its body: the request line and the fields; and, beyond 16 bytes for each chunk,
            chunk extensions and trailers.
        fields: the number of header fields, and of trailer fields.
        pipelined: how many requests wait behind a running one before reading pauses. It continues below a quarter.
        head_seconds: until a head is complete, from its first byte; and until the first byte of a new connection.
        keep_alive_seconds: between requests. Longer than the idle timeout of common load balancers (60 s); otherwise
            they reuse connections that are closing.
        write_seconds: how long a client may read nothing of a response that waits for it.
        discard_bytes: how much of a refused request is read and dropped, so that its sender can read the response.
        discard_seconds: for how long that is done.
        connections: the cap, at which the connection longest without a request makes room for a new one.
        sweep_seconds: between two checks of all connections, which is the precision of the times above.
    """

    head_bytes: int = 64 * 1024
    fields: int = 100
    pipelined: int = 16
    head_seconds: float = 10.0
    keep_alive_seconds: float = 75.0
    write_seconds: float = 30.0
    discard_bytes: int = 64 * 1024 * 1024
    discard_seconds: float = 5.0
    connections: int = field(default_factory=connection_cap)
    sweep_seconds: float = 1.0


DEFAULT_LIMITS = Limits()
