"""Checks that the ports of the mesh are free, and finds the processes that use the others."""

import errno
import itertools
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from localmesh.holders import holders
from localmesh.probe import HOST

LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp, proc_pid_net(5)
DISTANCE = 10  # from a used port to the first alternative that is tried


class PortsTaken(Exception):
    """Some ports cannot be used; the text names the processes that use them, and a command with free ports."""


@dataclass(frozen=True)
class Unusable:
    """A port that cannot be listened on now, and a free one to use instead."""

    variable: str
    port: int
    reason: str
    alternative: int


def check(ports: Mapping[str, int]) -> list[Unusable]:
    """Tries to bind each port as a server does; returns those that fail. `ports` holds numbers by variable."""
    used = set(ports.values())
    unusable = []
    for variable, port in ports.items():
        if reason := _refusal(port):
            alternative = _free_port(port, used)
            used.add(alternative)
            unusable.append(Unusable(variable, port, reason, alternative))
    return unusable


def require_free(ports: Mapping[str, int], command: str) -> None:
    """Checks that all ports can be listened on; `ports` holds numbers by variable, `command` accepts the variables.

    Raises:
        PortsTaken: at least one cannot.
    """
    unusable = check(ports)
    if unusable:
        lines = [f"{port.variable}: port {port.port} is {port.reason}" for port in unusable]
        moved = " ".join(f"{port.variable}={port.alternative}" for port in unusable)
        raise PortsTaken("\n".join([*lines, f"these are free: {moved} {command}"]))


def _refusal(port: int) -> str | None:
    try:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((HOST, port))
            server.listen()
    except OSError as error:
        return _owner(port) if error.errno == errno.EADDRINUSE else str(error.strerror)
    return None


def _owner(port: int) -> str:
    found = [holder for link in _sockets(port) for holder in holders(link)]
    return f"in use by {found[0]}" if found else "in use"


def _sockets(port: int) -> Iterator[str]:
    """The sockets that listen on `port`, in the form of the links under /proc/PID/fd."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            for row in table.read_text().splitlines()[1:]:
                _, local, _, state, *fields = row.split()
                if state == LISTEN and int(local.rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[5]}]"


def _free_port(near: int, used: set[int]) -> int:
    candidates = itertools.chain(range(near + DISTANCE, 65536), range(1024, near))
    return next(port for port in candidates if port not in used and _refusal(port) is None)
