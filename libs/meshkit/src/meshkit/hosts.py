"""Names of hosts, as in the Host header (RFC 9110, section 7.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|((?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*))(?::([0-9]{0,5}))?", re.ASCII)
MAX_PORT = 65535


@lru_cache
def host_name(value: bytes) -> str | None:
    """The name or address in a Host header, in lower case, without brackets and a final dot; None if it is invalid.

    A Host header may be empty, and so the name.
    """
    found = HOST.fullmatch(value)
    if not found or int(found[3] or 0) > MAX_PORT:
        return None
    if found[1] is None:
        return found[2].decode().lower().removesuffix(".")
    try:
        return str(IPv6Address(found[1].decode()))
    except AddressValueError:
        return None
