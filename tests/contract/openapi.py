"""The OpenAPI document of the edge: `python -m tests.contract.openapi` rewrites the snapshot."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from api_edge.app import build
from api_edge.rest.build import build_app
from api_edge.settings import Settings
from meshkit.lifecycle import Stop
from meshkit.testing import SpanCapture

if TYPE_CHECKING:
    from fastapi import FastAPI

SNAPSHOT = Path(__file__).with_suffix(".json")


async def document() -> str:
    """The current document of the edge. Calls no backend: channels connect at their first call."""
    telemetry = SpanCapture("api_edge").telemetry
    async with build(Settings(), telemetry) as app:
        return format_document(build_app(app.storefront, stop=Stop(), telemetry=telemetry, trace_url=""))


def format_document(app: FastAPI) -> str:
    """The response of `/openapi.json`, formatted for reading and comparing."""
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(asyncio.run(document()), encoding="utf-8")
