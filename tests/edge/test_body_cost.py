"""No body that the edge accepts for reading costs it much memory, whatever the shape."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from meshkit.fastapi.middleware import MAX_BODY_BYTES
from tests.edge.mesh import Mesh, assert_problem, mesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
MAX_QUERY_BYTES = 60_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


def full(head: str, item: Callable[[int], str], tail: str) -> bytes:
    """A body of the maximum size: as many items as fit, separated by commas."""
    items: list[str] = []
    room = MAX_BODY_BYTES - len(head) - len(tail)
    while (room := room - len(text := item(len(items))) - 1) > 0:
        items.append(text)
    return f"{head}{','.join(items)}{tail}".encode()


SHAPES: dict[str, Callable[[], bytes]] = {
    "unknown keys": partial(full, "{", lambda number: f'"{number:x}":0', "}"),
    "unknown keys of a line": partial(full, '{"lines":[{', lambda number: f'"{number:x}":0', "}]}"),
    "keys that are repeated": partial(full, "{", lambda _: '"":0', "}"),
    "lines that are numbers": partial(full, '{"lines":[', lambda _: "0", "]}"),
    "lines without content": partial(full, '{"lines":[', lambda _: "{}", "]}"),
    "lines that are lists": partial(full, '{"lines":[', lambda _: "[]", "]}"),
    "lines with unknown keys": partial(full, '{"lines":[', lambda number: f'{{"{number}":0}}', "]}"),
    "invalid lines": partial(full, '{"lines":[', lambda _: '{"sku":""}', "]}"),
    "numbers that are not whole": partial(full, '{"lines":[', lambda _: "1e1", "]}"),
    "numbers of many digits": partial(full, '{"lines":[', lambda _: "9" * 4300, "]}"),
    "a number of too many digits": lambda: b'{"lines":' + b"9" * 100_000 + b"}",
    "one string": lambda: json.dumps({"lines": "x" * 100_000}).encode(),
    "one key": lambda: json.dumps({"x" * 100_000: 0}).encode(),
    "escapes": lambda: b'{"' + b"\\u0000" * 20_000 + b'":0}',
    "nested lists": lambda: b"[" * MAX_BODY_BYTES,
    "nested lists that end": lambda: b'{"lines":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    "nested objects": lambda: b'{"":' * (MAX_BODY_BYTES // 4),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_full_body_of_any_shape_costs_at_most_20_mb(shop: Mesh, shape: str) -> None:
    body = SHAPES[shape]()
    await shop.ask("POST", "/v1/orders", data=b"{}", headers=JSON)
    tracemalloc.start()
    try:
        answer = await shop.ask("POST", "/v1/orders", data=body, headers=JSON)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_problem(answer, 422, "INVALID_REQUEST")
    assert len(answer.text) < 20_000
    assert peak < 20 * MIB


async def test_a_full_query_of_invalid_values_costs_at_most_20_mb(shop: Mesh) -> None:
    query = "&".join(["sku="] * (MAX_QUERY_BYTES // 5))
    await shop.get("/v1/products?sku=")
    tracemalloc.start()
    try:
        answer = await shop.get(f"/v1/products?{query}")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_problem(answer, 422, "INVALID_REQUEST")
    assert [error["field"] for error in answer.body["errors"]] == ["sku"]
    assert peak < 20 * MIB
