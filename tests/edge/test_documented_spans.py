"""The table of spans in docs/telemetry.md names every attribute that the mesh gives them, and no other."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
from opentelemetry.trace import SpanKind

from api_edge.purge import purge
from tests.edge.backends import open_clients
from tests.edge.mesh import Mesh, mesh
from tests.inventory.opened import prepare_database, store_on
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

Table = dict[tuple[str, str], set[str]]
"""The attributes of spans, by their subject, such as `http`, and their kind."""

SUBJECTS = ("http.", "rpc.", "db.", "inventory.", "pricing.")
INTEGERS = {"server.port", "client.port", "http.response.status_code", "db.operation.batch.size", "rpc.batch.size"} | {
    "inventory.expired_reservations",
    "inventory.purged_reservations",
    "pricing.deleted_quotes",
}
OF_POSTGRESQL = {"server.address", "server.port"}
OF_FAILURES = {"error.type", "db.response.status_code"}
"""Attributes of statements on PostgreSQL and of failed ones, which test_database_spans.py tests."""


def documented_attributes() -> Table:
    rows = re.findall(
        r"^\| [^|]+ \| \w+ \| (server|client|internal) \|([^|]+)\|[^|]+\|$",
        (ROOT / "docs" / "telemetry.md").read_text(),
        re.MULTILINE,
    )
    table = [(kind, re.findall(r"`([^`]+)`", attributes)) for kind, attributes in rows]
    found: Table = defaultdict(set)
    for kind, names in table:
        found[subject(names), kind] |= set(names)
    return found


def subject(names: Iterable[str]) -> str:
    """The subject of a span: the prefix of its first attribute that belongs to one subject only."""
    return next(name.partition(".")[0] for name in names if name.startswith(SUBJECTS))


def emitted_attributes(spans: Iterable[ReadableSpan]) -> Table:
    table: Table = defaultdict(set)
    for span in spans:
        names = set(span.attributes or {})
        table[subject(names), span.kind.name.lower()] |= names
    return table


def integers(spans: Iterable[ReadableSpan]) -> set[str]:
    values: list[Mapping[str, object]] = [span.attributes or {} for span in spans]
    return {name for attributes in values for name, value in attributes.items() if isinstance(value, int)}


async def traffic(shop: Mesh, folder: Path) -> None:
    """Makes spans of every kind: successful, failed, timed out, unknown and background ones."""
    await shop.get("/v1/products/TEA-0001?currency=EUR")
    await shop.get("/v1/products/TEA-0001", headers={"X-Request-Timeout-Ms": "1"})
    await shop.ask("PURGE", "/v1/products/TEA-0001")
    await asyncio.gather(*(shop.get("/v1/products/NO-1") for _ in range(10)))  # which share their calls
    await shop.order(("TEA-0001", 1), ("TEA-0002", 2))
    async with grpc.aio.insecure_channel(shop.inventory_address) as channel:
        sell: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/shop.v1.Shop/Sell")
        assert await sell(b"").code() is grpc.StatusCode.UNIMPLEMENTED
    shop.clock.advance(timedelta(minutes=16))
    async with prepare_database(f"sqlite:///{folder / 'inventory.db'}", shop.inventory) as database:
        assert await store_on(database, shop.inventory, shop.clock).sweep() == 1
    async with open_clients(
        {"inventory": shop.inventory_address, "pricing": shop.pricing_address}, shop.edge
    ) as clients:
        await purge(*clients, shop.clock())


async def test_the_table_names_every_attribute_of_every_span(tmp_path: Path) -> None:
    async with mesh(tmp_path) as shop:
        await traffic(shop, tmp_path)
        spans = await shop.spans()
    found = emitted_attributes(spans)
    found["db", "client"] |= OF_POSTGRESQL | OF_FAILURES
    assert found == documented_attributes()
    assert {span.kind for span in spans} == {SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL}
    assert integers(spans) == INTEGERS
