"""Reads, writes and binds `host:port`. Every listen address of every process means the same, because it passes here.

A host is a name or an IPv4 address, or an IPv6 address in brackets, as in a URL (RFC 3986, section 3.2.2). A name
stands for one of its addresses: IPv4, if it has one. `0.0.0.0` and `[::]` both stand for all addresses of both
families, as gRPC has it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from typing import NamedTuple

ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]\s]+)\]|(?P<name>[\w.-]+)):(?P<port>[0-9]{1,99})", re.ASCII)
LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)", re.ASCII)
BACKLOG = 2048


class HostPort(NamedTuple):
    """An address; its text is that of a URL. The host has no brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(address: str) -> HostPort:
    """The parts of `host:port`. Raises ValueError: the text is not such an address."""
    found = ADDRESS.fullmatch(address)
    if not found or int(found["port"]) >= 2**16 or not (_is_ipv6(found["ipv6"]) or _is_name(found["name"])):
        raise ValueError("must be host:port, such as 127.0.0.1:9464")
    return HostPort(found["ipv6"] or found["name"], int(found["port"]))


def resolve(address: str) -> HostPort:
    """The numeric address that a server binds for `host:port`. A wildcard is `::` if the machine has IPv6.

    Raises:
        ValueError: the text is not such an address.
        OSError: the name has no address.
    """
    host, port = parse(address)
    numeric = _numeric(host, port)
    if not numeric.is_unspecified:
        return HostPort(str(numeric), port)
    return HostPort("::" if socket.has_dualstack_ipv6() else "0.0.0.0", port)


def listen(address: str) -> socket.socket:
    """A listening socket for `host:port`. Port 0 takes a free port. Raises ValueError and OSError, see `resolve`."""
    host, port = resolve(address)
    if ":" not in host:
        return socket.create_server((host, port), backlog=BACKLOG)
    ip, _, zone = host.partition("%")
    scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone) if zone else 0
    where = (ip, port, 0, scope)
    return socket.create_server(where, family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=ip == "::")


def reason(error: OSError) -> str:
    """Why an address cannot be bound, without the address that Python appends in a form of its own."""
    return str(error.strerror or error).partition(" (")[0]


def unmapped(host: str) -> str:
    """The IPv4 address of a peer that a socket for both families names `::ffff:192.0.2.1`; other hosts unchanged."""
    return host.removeprefix("::ffff:") if "." in host else host


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, that of IPv4 also in its IPv6 form; None for a name."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip


def _numeric(host: str, port: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if ip := ip_of(host):
        return ip
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return ipaddress.ip_address(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])


def _is_ipv6(host: str | None) -> bool:
    try:
        return host is not None and ipaddress.IPv6Address(host) is not None
    except ValueError:
        return False


def _is_name(host: str | None) -> bool:
    """Whether the host is a DNS name or an IPv4 address. A last label of digits makes it an address."""
    *_, last = labels = (host or "").removesuffix(".").split(".")
    if last.isdecimal():
        with suppress(OSError):
            return bool(socket.inet_aton(host or ""))
        return False
    return all(map(LABEL.fullmatch, labels))
