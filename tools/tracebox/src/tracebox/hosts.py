"""ASGI middleware that refuses requests for foreign host names.

A web page can make its own name resolve to this machine and then read tracebox as a page of the same origin (DNS
rebinding). It cannot choose what the browser sends as Host.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from meshkit.addresses import ip_of
from meshkit.hosts import host_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

FOREIGN = "this is not a name of tracebox; set TRACEBOX_ALLOWED_HOSTS to names by which it is reached\n"


class OwnHosts:
    """Serves a request whose Host is this machine's or one of `names`, and refuses any other as misdirected.

    This machine's are localhost, loopback addresses, and the address that the client has connected to. A request
    without a host name is from no browser.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {"", "localhost", *names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] != "http" or self._is_own(scope):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse(FOREIGN, HTTPStatus.MISDIRECTED_REQUEST)(scope, receive, send)

    def _is_own(self, scope: Scope) -> bool:
        hosts = [host_name(value) for name, value in scope["headers"] if name == b"host"]
        return all(host is not None and self._is_name(host, scope["server"]) for host in hosts)

    def _is_name(self, host: str, server: tuple[str, int] | None) -> bool:
        if host in self._names or host.endswith(".localhost"):  # which browsers resolve by themselves (RFC 6761)
            return True
        address = ip_of(host)
        return address is not None and (address.is_loopback or bool(server and address == ip_of(server[0])))
