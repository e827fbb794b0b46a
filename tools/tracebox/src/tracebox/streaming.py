"""Sends large JSON documents in chunks, so that no response is in memory as a whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

CHUNK = 64 * 1024  # characters


def stream(parts: Iterable[str], headers: Mapping[str, str] | None = None) -> StreamingResponse:
    """A response with a JSON document, whose parts are created while it is sent."""
    return StreamingResponse(_chunks(parts), media_type="application/json", headers=headers)


def commas(items: Iterable[str]) -> Iterator[str]:
    """The items with a comma before each but the first."""
    for index, item in enumerate(items):
        yield f",{item}" if index else item


async def _chunks(parts: Iterable[str]) -> AsyncIterator[str]:
    waiting: list[str] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= CHUNK:
            yield "".join(waiting)
            waiting, size = [], 0
            await asyncio.sleep(0)  # a client that reads fast must not keep the others waiting
    yield "".join(waiting)
