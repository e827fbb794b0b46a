"""/docs, to which / redirects: the OpenAPI document for people.

This process serves Swagger UI itself, so the page needs no internet, and its policy lets it load nothing from there.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from api_edge.rest.paths import ASSETS, DOCS, OPENAPI
from meshkit.fastapi.response_headers import ResponseHeaders

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

router = APIRouter(include_in_schema=False)

mimetypes.init()  # it reads files, which would block the event loop later

files = StaticFiles(packages=[("fastapi_offline", "static"), ("api_edge.rest", "static")])
"""Swagger UI's script and style from the package fastapi-offline, and our addition, dark-mode.js."""

PAGE_HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
"""For the page and its files, which a browser may keep but has to check."""

POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page. Swagger UI adds style elements to it, and has images in its style sheet."""


cached_files = ResponseHeaders(files, headers=PAGE_HEADERS)


async def assets(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves the files (ASGI), mounted at ASSETS.

    Ignores the Range header, because Starlette rejects an invalid one in plain text.
    """
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
    await cached_files(scope, receive, send)


@router.get("/")
async def root(request: Request) -> RedirectResponse:
    """Redirects to the documentation."""
    return RedirectResponse(request.scope["root_path"] + DOCS)


@router.get(DOCS)
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI for this API, in the light or dark style of the system."""
    prefix = request.scope["root_path"]
    files_url = prefix + ASSETS
    response = get_swagger_ui_html(
        openapi_url=prefix + OPENAPI,
        title=request.app.title,
        swagger_js_url=f"{files_url}/swagger-ui-bundle.js",
        swagger_css_url=f"{files_url}/swagger-ui.css",
        swagger_favicon_url=f"{files_url}/favicon.png",
        swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True},
    )
    dark_mode = f'<script src="{files_url}/dark-mode.js"></script>'
    page = bytes(response.body).decode().replace("</head>", f"{dark_mode}</head>")
    policy = POLICY.format(scripts=" ".join(_hashes(page)))
    return HTMLResponse(page, headers=PAGE_HEADERS | {"Content-Security-Policy": policy})


def _hashes(page: str) -> list[str]:
    """The sources of a policy that allow the inline scripts of a page."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
