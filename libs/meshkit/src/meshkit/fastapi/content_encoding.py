"""ASGI middleware that rejects encoded bodies, which nothing here decodes: a small one may unpack to a large one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.fastapi.refusal import refuse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from meshkit.fastapi.problem_details import Problems

NO_CODING = {b"identity", b""}
DETAIL = "send the body without Content-Encoding"


class UnencodedBodies:
    """Rejects a request with a Content-Encoding other than identity (RFC 9110, section 15.5.16)."""

    def __init__(self, app: ASGIApp, *, problems: Problems) -> None:
        self._app = app
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        if scope["type"] != "http" or all(map(_is_identity, _codings(scope))):
            await self._app(scope, receive, send)
            return
        problem = self._problems.of_status(scope["path"], 415, DETAIL)
        problem.headers["Accept-Encoding"] = "identity"
        await refuse(problem, scope, receive, send)


def _codings(scope: Scope) -> list[bytes]:
    """The values of Content-Encoding, each a list of codings."""
    return [value for name, value in scope["headers"] if name == b"content-encoding"]


def _is_identity(codings: bytes) -> bool:
    return {coding.strip().lower() for coding in codings.split(b",")} <= NO_CODING
