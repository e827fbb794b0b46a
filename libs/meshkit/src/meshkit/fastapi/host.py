"""ASGI middleware for the Host header: what is invalid is a 400, and what names another host a 421."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.errors import InvalidArgument
from meshkit.fastapi.prefix import route_path
from meshkit.fastapi.problem_details import AppError
from meshkit.fastapi.refusal import log_refusal, refuse
from meshkit.hosts import host_name

if TYPE_CHECKING:
    import logging
    from collections.abc import Container

    from starlette.types import ASGIApp, Receive, Scope, Send

    from meshkit.fastapi.problem_details import Problems


class InvalidHost(AppError, InvalidArgument):
    """The request has no Host header, more than one, or an invalid one."""

    def __init__(self) -> None:
        super().__init__("send one Host header with the name or address of this server")


class HostHeader:
    """Rejects a request without Host, with more than one or with an invalid one (RFC 9112, section 3.2).

    A request in HTTP/1.0 may have none. In HTTP/2 and later, the server passes `:authority` on as the first Host; a
    second one must be equal (RFC 9113, section 8.3.1).
    """

    def __init__(self, app: ASGIApp, *, problems: Problems, access_log: logging.Logger) -> None:
        self._app = app
        self._problems = problems
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] != "http" or _is_valid(scope):
            await self._app(scope, receive, send)
            return
        problem = self._problems.of_error(scope["path"], InvalidHost())
        log_refusal(self._access_log, scope, problem.status_code)
        await refuse(problem, scope, receive, send)


class AllowedHosts:
    """Rejects a request for a host that is not one of `names` as misdirected (RFC 9110, section 7.4).

    Names and addresses are those of `meshkit.hosts.host_name`; ports do not matter. The paths of `probes` are exempt,
    because orchestrators ask for them by the address of a pod.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Container[str | None],
        problems: Problems,
        access_log: logging.Logger,
        probes: Container[str] = (),
    ) -> None:
        self._app = app
        self._names = names
        self._problems = problems
        self._access_log = access_log
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] != "http" or self._allows(scope):
            await self._app(scope, receive, send)
            return
        problem = self._problems.of_status(scope["path"], 421, "this server does not serve the host of the request")
        log_refusal(self._access_log, scope, problem.status_code)
        await refuse(problem, scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        return host_name(host) in self._names or route_path(scope) in self._probes


def _is_valid(scope: Scope) -> bool:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) == 1 or (hosts and scope["http_version"] >= "2" and len(set(hosts)) == 1):
        return host_name(hosts[0]) is not None
    return not hosts and scope["http_version"] == "1.0"
