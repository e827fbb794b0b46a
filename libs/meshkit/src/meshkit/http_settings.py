"""The types of settings for what stands in front of an HTTP server, as lists separated by commas."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_settings import NoDecode

from meshkit import tls
from meshkit.extras import require
from meshkit.hosts import host_name

if TYPE_CHECKING:
    from collections.abc import Callable

Item = TypeVar("Item")

ORIGIN = re.compile(r"(https?)://([^/?#@\s]+)")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}

PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.~+@:=-]+)+", re.ASCII)
"""A path prefix that is safe in HTML, JavaScript and a Location header, and cannot name another host."""


def _items(parse: Callable[[str], Item]) -> BeforeValidator:
    """Splits a text at its commas, and parses each part."""

    def split(value: object) -> object:
        return (
            tuple(parse(part.strip()) for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        )

    return BeforeValidator(split)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError("must be addresses or networks, such as 10.0.0.0/8,2001:db8::1") from None


def _name(text: str) -> str:
    name = host_name(text.encode()) if not re.search(r":[0-9]*$", text) or text.startswith("[") else None
    if not name or "*" in name:
        raise ValueError("must be names or addresses of hosts without ports, such as shop.example.com,[::1]")
    return name


def _origin(text: str) -> str:
    found = ORIGIN.fullmatch(text)
    if not (found and host_name(found[2].encode()) and text == text.lower()):
        raise ValueError("must be origins in lower case without a path, such as https://shop.example.com")
    if text.endswith(DEFAULT_PORTS[found[1]]):
        raise ValueError(f"must be origins as browsers send them, without {DEFAULT_PORTS[found[1]]}")
    return text


def _prefix(text: str) -> str:
    prefix = text.rstrip("/")
    if prefix and not PREFIX.fullmatch(prefix):
        raise ValueError("must be a path such as /shop")
    return prefix


def _installed(server: str) -> str:
    try:
        require("http" if server == "uvicorn" else server)
    except ImportError as error:
        raise ValueError(str(error)) from None
    return server


def _certificate(path: str) -> str:
    if path:
        tls.check_certificate(path)
    return path


def _described(text: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": text})


Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    NoDecode,
    _items(_network),
    _described("addresses or networks, separated by commas"),
]
"""The type of a setting that lists addresses and networks in CIDR notation."""

HostNames = Annotated[tuple[str, ...], NoDecode, _items(_name), _described("names or addresses, separated by commas")]
"""The type of a setting that lists hosts, in the form of `meshkit.hosts.host_name`."""

Origins = Annotated[tuple[str, ...], NoDecode, _items(_origin), _described("origins, separated by commas")]
"""The type of a setting that lists web origins (RFC 6454) as browsers send them."""

PathPrefix = Annotated[str, AfterValidator(_prefix), _described("path or empty")]
"""The type of a setting that is a path such as `/shop`, or empty."""

HttpServer = Literal["uvicorn", "hypercorn", "granian"]
"""The ASGI servers that run apps: see `meshkit.http.servers`."""

InstalledServer = Annotated[HttpServer, AfterValidator(_installed)]
"""The type of a setting that selects an ASGI server, whose extra is installed."""

CertificateFile = Annotated[str, AfterValidator(_certificate), _described("path of a PEM file, or empty")]
"""The type of a setting that is the path of a file with the certificate of a server, or empty for no TLS."""

KeyFile = Annotated[str, _described("path of a PEM file, or empty")]
"""The type of a setting that is the path of a file with its key. Its class checks it, see `check_pair`."""


def check_pair(key: str, certificate: str | None, variable: str) -> None:
    """Checks the values of a KeyFile and of its CertificateFile, which is None if it is invalid.

    Args:
        key: a path, or empty.
        certificate: a path, or empty.
        variable: the name of the setting that is the certificate.

    Raises:
        ValueError: one of them is missing, or they do not belong together.
    """
    if certificate is not None and bool(key) != bool(certificate):
        raise ValueError(f"must be set together with {variable}")
    if certificate and key:
        tls.check_key(key, certificate)
