"""ASGI middleware for a path prefix, which a proxy in front removes from the paths of requests.

The prefix becomes the `root_path` of the ASGI scope, and the beginning of its `path`, as the specification has it:
https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Receive, Scope, Send


class PathPrefix:
    """Adds `prefix`, such as `/shop`, to every request that has no prefix yet."""

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] == "http" and not scope.get("root_path"):
            scope = with_prefix(scope, self._prefix)
        await self._app(scope, receive, send)


def with_prefix(scope: Scope, prefix: str) -> Scope:
    """A copy of the scope of a request whose path the proxy in front has shortened by `prefix`."""
    raw_path = scope.get("raw_path")
    return {
        **scope,
        "root_path": prefix + scope.get("root_path", ""),
        "path": prefix + scope["path"],
        "raw_path": raw_path and prefix.encode() + raw_path,
    }


def prefix_of(scope: MutableMapping[str, Any]) -> str:
    """The prefix of a request's path, without the path of a mount within the app."""
    prefix: str = scope.get("app_root_path", scope.get("root_path", ""))  # the first one is set below a mount
    return prefix


def route_path(scope: MutableMapping[str, Any]) -> str:
    """The path of a request without the prefix, as the routes have it."""
    path: str = scope["path"]
    return path.removeprefix(prefix_of(scope))
