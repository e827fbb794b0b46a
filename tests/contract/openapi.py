"""The OpenAPI document of the edge: `python -m tests.contract.openapi` writes the snapshot anew."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from api_edge.app import open_storefront
from api_edge.rest.build import build_app
from api_edge.settings import Settings
from meshkit.lifecycle import Stop
from meshkit.testing import SpanCapture

if TYPE_CHECKING:
    from fastapi import FastAPI

SNAPSHOT = Path(__file__).with_suffix(".json")


async def document() -> str:
    """The document of the edge as it is. No backend is called: channels connect at their first call."""
    telemetry = SpanCapture("api_edge").telemetry
    async with open_storefront(Settings(), telemetry) as storefront:
        return written(build_app(storefront, stop=Stop(), telemetry=telemetry, trace_url=""))


def written(app: FastAPI) -> str:
    """What `/openapi.json` answers, for people to read and compare."""
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(asyncio.run(document()), encoding="utf-8")
