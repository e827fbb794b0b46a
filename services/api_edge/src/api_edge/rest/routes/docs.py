"""/docs, to which / redirects: the OpenAPI document for people.

This process serves Swagger UI itself, so the page needs no internet.
"""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from api_edge.rest.paths import ASSETS, DOCS

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

router = APIRouter(include_in_schema=False)

mimetypes.init()  # it reads files, which would block the event loop later

files = StaticFiles(packages=[("fastapi_offline", "static"), ("api_edge.rest", "static")])
"""Swagger UI's script and style from the package fastapi-offline, and our addition, dark-mode.js."""

DARK_MODE = f'<script src="{ASSETS}/dark-mode.js"></script>'


async def assets(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves the files (ASGI), mounted at ASSETS.

    Ignores the Range header, because Starlette rejects an invalid one in plain text.
    """
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
    await files(scope, receive, send)


@router.get("/")
async def root() -> RedirectResponse:
    """Redirects to the documentation."""
    return RedirectResponse(DOCS)


@router.get(DOCS)
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI for this API, in the light or dark style of the system."""
    page = get_swagger_ui_html(
        openapi_url=str(request.app.openapi_url),
        title=request.app.title,
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
        swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True},
    )
    return HTMLResponse(bytes(page.body).decode().replace("</head>", f"{DARK_MODE}</head>"))
