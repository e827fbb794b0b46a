"""No body that the edge accepts for reading costs it much memory, whatever the shape."""

from __future__ import annotations

import json
import tracemalloc
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


SHAPES = {
    "unknown keys": full("{", lambda number: f'"{number:x}":0', "}"),
    "unknown keys of a line": full('{"lines":[{', lambda number: f'"{number:x}":0', "}]}"),
    "keys that are repeated": full("{", lambda _: '"":0', "}"),
    "lines that are numbers": full('{"lines":[', lambda _: "0", "]}"),
    "lines without content": full('{"lines":[', lambda _: "{}", "]}"),
    "lines that are lists": full('{"lines":[', lambda _: "[]", "]}"),
    "lines with unknown keys": full('{"lines":[', lambda number: f'{{"{number}":0}}', "]}"),
    "invalid lines": full('{"lines":[', lambda _: '{"sku":""}', "]}"),
    "numbers that are not whole": full('{"lines":[', lambda _: "1e1", "]}"),
    "numbers of many digits": full('{"lines":[', lambda _: "9" * 4300, "]}"),
    "a number of too many digits": b'{"lines":' + b"9" * 100_000 + b"}",
    "one string": json.dumps({"lines": "x" * 100_000}).encode(),
    "one key": json.dumps({"x" * 100_000: 0}).encode(),
    "escapes": b'{"' + b"\\u0000" * 20_000 + b'":0}',
    "nested lists": b"[" * MAX_BODY_BYTES,
    "nested lists that end": b'{"lines":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    "nested objects": b'{"":' * (MAX_BODY_BYTES // 4),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_full_body_of_any_shape_costs_at_most_20_mb(shop: Mesh, shape: str) -> None:
    await shop.ask("POST", "/v1/orders", data=b"{}", headers=JSON)
    tracemalloc.start()
    try:
        answer = await shop.ask("POST", "/v1/orders", data=SHAPES[shape], headers=JSON)
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
