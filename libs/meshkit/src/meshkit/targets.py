"""Checks the names of servers that gRPC channels take: https://github.com/grpc/grpc/blob/master/doc/naming.md.

gRPC takes any text, and a channel to a name that it cannot use fails every call.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from meshkit import addresses
from meshkit.addresses import HostPort

MEANING = "must be a gRPC target with a port, such as 127.0.0.1:50052, [::1]:50052 or dns:///prices:50052"

PATHS = re.compile(r"(unix:(?!//[^/])|unix-abstract:|vsock:|xds:).*[^/:]", re.IGNORECASE)
"""Targets whose rest is for the resolver to understand."""

DNS = re.compile(r"dns:(//(?P<server>[^/]*)/|/)?(?P<address>[^/]+)", re.IGNORECASE)
IP = re.compile(r"(?P<version>ipv4|ipv6):(///|/)?(?P<addresses>[^/]+)", re.IGNORECASE)


def check(target: str) -> str:
    """The target. Raises ValueError if no channel can ever reach it."""
    if not (target.isprintable() and " " not in target and (PATHS.fullmatch(target) or servers(target))):
        raise ValueError(MEANING)
    return target


def servers(target: str) -> list[HostPort]:
    """The addresses or the one name in a target; empty if it has none, or one that gRPC cannot use."""
    try:
        return _servers(unquote(target))
    except ValueError:
        return []


def _servers(target: str) -> list[HostPort]:
    if found := IP.fullmatch(target):
        several = [_server(address) for address in found["addresses"].split(",")]
        version = int(found["version"][-1])
        return several if all(ipaddress.ip_address(each.host).version == version for each in several) else []
    if found := DNS.fullmatch(target):
        return [_server(found["address"])] if _is_dns_server(found["server"]) else []
    return [_server(target)]


def _server(address: str) -> HostPort:
    """One server. Raises ValueError for port 0, and for short forms of IPv4 addresses, which gRPC looks up in DNS."""
    host, port = addresses.parse(address)
    if port == 0:
        raise ValueError(MEANING)
    if ":" not in host and host.rpartition(".")[2].isdecimal():
        ipaddress.IPv4Address(host)
    return HostPort(host, port)


def _is_dns_server(server: str | None) -> bool:
    """Whether the DNS server in `dns://server/name` is missing, or an IP address with or without a port."""
    with_port = server if server and re.search(r"[^:]:[0-9]+$", server) else f"{server}:53"
    return not server or bool(ipaddress.ip_address(addresses.parse(with_port).host))
