"""ASGI middleware for requests that come through trusted proxies: their word for the client, scheme, host and prefix.

`Forwarded` (RFC 7239) is ignored: a proxy that sets the X-Forwarded-* fields passes it on as the client sent it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from meshkit.addresses import ip_of
from meshkit.fastapi.prefix import with_prefix
from meshkit.hosts import host_name
from meshkit.http_settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from starlette.types import ASGIApp, Receive, Scope, Send

ADDRESS = re.compile(r"\[([^\]]+)\](?::([0-9]{1,5}))?|([0-9.]+):([0-9]{1,5})|([0-9A-Fa-f:.]+)")
"""An address in X-Forwarded-For, with or without a port: `[::1]:80`, `192.0.2.1:80`, `192.0.2.1`, `2001:db8::1`."""


class TrustedProxies:
    """Replaces client, scheme, host and prefix in the scope of a request whose peer is in one of `networks`.

    The client is the last address in X-Forwarded-For that is not trusted itself; an entry that is no address ends the
    search. X-Forwarded-Proto and X-Forwarded-Host count as the nearest proxy wrote them: the last value. Proxies that
    shorten the path one after the other append to X-Forwarded-Prefix. An invalid value counts as absent.
    """

    def __init__(self, app: ASGIApp, *, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._networks = networks
        self._is_trusted_peer = lru_cache(maxsize=1024)(self._is_trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] == "http" and scope["client"] and self._is_trusted_peer(scope["client"][0]):
            scope = self._forwarded(scope)
        await self._app(scope, receive, send)

    def _forwarded(self, scope: Scope) -> Scope:
        scope = {**scope, "client": self._client(scope)}
        if (schemes := _values(scope, b"x-forwarded-proto")) and schemes[-1].lower() in {"http", "https"}:
            scope["scheme"] = schemes[-1].lower()
        if (hosts := _values(scope, b"x-forwarded-host")) and host_name(hosts[-1].encode("latin-1")):
            others = [field for field in scope["headers"] if field[0] != b"host"]
            scope["headers"] = [(b"host", hosts[-1].encode("latin-1")), *others]
        prefix = "".join(value.rstrip("/") for value in _values(scope, b"x-forwarded-prefix"))
        return with_prefix(scope, prefix) if PREFIX.fullmatch(prefix) else scope

    def _client(self, scope: Scope) -> tuple[str, int]:
        client: tuple[str, int] = scope["client"]
        for text in reversed(_values(scope, b"x-forwarded-for")):
            if not (hop := _address(text)):
                break
            client = hop
            if not self._is_trusted(hop[0]):
                break
        return client

    def _is_trusted(self, host: str) -> bool:
        address = ip_of(host)
        return address is not None and any(address in network for network in self._networks)


def _values(scope: Scope, name: bytes) -> list[str]:
    """The values of a header that is a list, from all of its fields in order."""
    text = ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)
    return [value.strip() for value in text.split(",")] if text else []


def _address(text: str) -> tuple[str, int] | None:
    if not (found := ADDRESS.fullmatch(text)):
        return None
    address = ip_of(found[1] or found[3] or found[5])
    return (str(address), int(found[2] or found[4] or 0)) if address else None
